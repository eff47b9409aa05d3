"""The checks of a header take a time that grows with its columns, not with their square."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from datafiles.chunks import InvalidInput
from datafiles.columns import find_columns, require_distinct

# Compared with each other, they take ten seconds.
NAMES = [f"c{number}" for number in range(40_000)]


def test_many_columns_are_checked_at_once() -> None:
    began = time.process_time()
    require_distinct(NAMES)
    assert time.process_time() - began < 2


def test_repeated_column_is_found_among_many() -> None:
    with pytest.raises(InvalidInput, match="columns 6 and 40001 have the same name: c5;"):
        require_distinct([*NAMES, "c5"])


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_many_columns_are_found_at_once(spelling: Callable[[str], str]) -> None:
    began = time.process_time()
    assert find_columns(list(map(spelling, NAMES)), NAMES) == list(range(len(NAMES)))
    assert time.process_time() - began < 2
