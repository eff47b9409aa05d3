"""The checks of a header take a time that grows with its columns, not with their square."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.chunks import InvalidInput
from datafiles.columns import MAX_COLUMNS, find_columns, require_distinct
from datafiles.formats import Format, Input, open_source

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


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("more", [0, 1])
def test_more_columns_than_are_read_are_refused(tmp_path: Path, format_: Format, more: int) -> None:
    file = tmp_path / "wide"
    row = dict.fromkeys(["text", *NAMES[: MAX_COLUMNS - 1 + more]], "good")
    if format_ is Format.csv:
        file.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    elif format_ is Format.jsonl:
        file.write_bytes(orjson.dumps(row))
    else:
        pq.write_table(pa.table({name: [text] for name, text in row.items()}), file)

    def names() -> int:
        return len(open_source(Input(file, format_), "text", None).names)

    if more:
        with pytest.raises(InvalidInput, match="10,001 columns; at most 10,000 are read"):
            names()
    else:
        assert names() == MAX_COLUMNS
