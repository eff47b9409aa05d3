"""The memory that scoring takes does not depend on the rows of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datafiles.formats import Format
from tests.unit.scoring.memory import peaks_mib

# A row group of Parquet is in memory while it is written; 8,000 rows do not fill one.
MOST_MIB_MORE = {Format.csv: 15, Format.jsonl: 15, Format.parquet: 60}


@pytest.mark.parametrize("format_", Format)
def test_four_times_the_rows_take_no_more_memory(
    tmp_path: Path, format_: Format, record_property: Callable[[str, object], None]
) -> None:
    few, many = peaks_mib(tmp_path, format_)
    record_property("MiB of 8,000 and of 32,000 rows", f"{few} and {many}")
    assert many < few + MOST_MIB_MORE[format_]
