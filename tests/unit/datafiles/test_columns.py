"""The checks of a header take a time that grows with its columns, not with their square."""

from __future__ import annotations

import time

import pytest

from datafiles.chunks import InvalidInput
from datafiles.columns import require_distinct

# Compared with each other, they take ten seconds.
NAMES = [f"c{number}" for number in range(40_000)]


def test_many_columns_are_checked_at_once() -> None:
    began = time.process_time()
    require_distinct(NAMES)
    assert time.process_time() - began < 2


def test_repeated_column_is_found_among_many() -> None:
    with pytest.raises(InvalidInput, match="columns 6 and 40001 have the same name: c5;"):
        require_distinct([*NAMES, "c5"])
