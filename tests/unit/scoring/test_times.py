"""Times, dates and numbers beside the texts that Python or a calendar does not reach."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.chunks import InvalidInput
from datafiles.readable_times import readable as readable_table
from tests.unit.scoring.scorers import score

MAX, MIN = (1 << 63) - 1, -(1 << 63)
DAY_MS, LAST_DAY_MS = 86_400_000, 253_402_214_400_000  # of 9999


def scored(tmp_path: Path, column: pa.Array, suffix: str, **options: bool) -> object:
    source, out = tmp_path / "in.parquet", tmp_path / f"out{suffix}"
    pq.write_table(pa.table({"text": ["good"], "c": column}), source, **options)
    score(source, out, versions=("v1",))
    with out.open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file) if suffix == ".csv" else map(json.loads, file)
    return row["c"]


@pytest.mark.parametrize(
    ("number", "type_", "readable"),
    [
        (LAST_DAY_MS, pa.timestamp("ms"), "9999-12-31 00:00:00.000"),
        (LAST_DAY_MS + DAY_MS, pa.timestamp("ms"), "10000-01-01 00:00:00.000"),
        (LAST_DAY_MS + DAY_MS, pa.timestamp("ms", "UTC"), "10000-01-01 00:00:00.000Z"),
        (LAST_DAY_MS + DAY_MS, pa.timestamp("ms", "Etc/GMT+5"), "9999-12-31 19:00:00.000-0500"),
        (-62_135_596_801_000, pa.timestamp("ms"), "0000-12-31 23:59:59.000"),
        (MAX, pa.timestamp("ns"), "2262-04-11 23:47:16.854775807"),
        (MAX - 86_400 * 10**9, pa.timestamp("ns", "UTC"), "2262-04-10 23:47:16.854775807Z"),
        (1, pa.timestamp("ns", "+05:30"), "1970-01-01 05:30:00.000000001+0530"),
        (1, pa.timestamp("us", "Nowhere/City"), "1970-01-01 00:00:00.000001Z"),
        # The "infinity" of a data base, and NaT of a program that does not know of null.
        *(
            (number, pa.timestamp(unit, zone), f"<value out of range: {number}>")
            for number in (MAX, MIN)
            for unit in ("ms", "us")
            for zone in (None, "UTC", "+05:30", "Nowhere/City")
        ),
        # The time of the zone would be one of 584 years before.
        (MAX, pa.timestamp("ns", "+05:30"), f"<value out of range: {MAX}>"),
        (MIN, pa.timestamp("ns", "-05:30"), f"<value out of range: {MIN}>"),
        (2_932_897, pa.date32(), "10000-01-01"),
        (-719_163, pa.date32(), "0000-12-31"),
        ((1 << 31) - 1, pa.date32(), f"<value out of range: {(1 << 31) - 1}>"),
        (LAST_DAY_MS + DAY_MS, pa.date64(), "10000-01-01"),
        (86_399_999_999_999, pa.time64("ns"), "23:59:59.999999999"),
        *((number, pa.duration("ns"), number) for number in (MAX, MIN, 0)),
    ],
)
def test_time_that_python_does_not_have_is_written(
    tmp_path: Path, number: int, type_: pa.DataType, readable: str | int
) -> None:
    width = pa.int32() if type_ == pa.date32() else pa.int64()
    column = pa.array([number], width).view(type_)
    assert str(scored(tmp_path, column, ".csv")) == str(readable)
    assert scored(tmp_path, column, ".jsonl") == readable
    # Parquet has them as they are.
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", versions=("v1",))
    column = pq.read_table(tmp_path / "out.parquet").column("c")
    is_day = column.type == pa.date32()  # Parquet has no other dates
    [kept] = column.cast(pa.int32() if is_day else pa.int64()).to_pylist()
    assert kept == (number // DAY_MS if type_ == pa.date64() else number)


@pytest.mark.parametrize(
    ("column", "readable"),
    [
        (pa.array([Decimal("9" * 76)], pa.decimal256(76, 0)), "9" * 76),
        (pa.array([Decimal("1E-76")], pa.decimal256(76, 76)), "1E-76"),
        (pa.array([Decimal("-" + "9" * 38)], pa.decimal128(38, 0)), "-" + "9" * 38),
        (pa.array([[MAX]], pa.list_(pa.duration("ns"))), f"[{MAX}]"),
        (pa.array([[2_932_897]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
         '["10000-01-01"]'),
    ],
)  # fmt: skip
def test_value_of_many_digits_or_in_a_list_is_written(
    tmp_path: Path, column: pa.Array, readable: str
) -> None:
    assert scored(tmp_path, column, ".csv") == readable


OUT = f"<value out of range: {MAX}>"


@pytest.mark.parametrize(
    ("wrapped", "readable"),
    [
        (lambda type_: (pa.list_(type_), [MAX, None, MAX]), [OUT, None, OUT]),
        (lambda type_: (pa.list_(pa.field("x", type_, nullable=False)), [MAX]), [OUT]),
        (lambda type_: (pa.struct([pa.field("x", type_, nullable=False)]), {"x": MAX}), {"x": OUT}),
        (lambda type_: (pa.large_list(type_), [MAX, None]), [OUT, None]),
        (lambda type_: (pa.list_(type_, 2), [None, MAX]), [None, OUT]),
        (lambda type_: (pa.struct([("a", type_), ("b", pa.int8())]), {"a": MAX}),
         {"a": OUT, "b": None}),
        (lambda type_: (pa.map_(pa.string(), type_), [("a", MAX)]), [["a", OUT]]),
        (lambda type_: (pa.list_(pa.struct([("a", pa.list_(type_))])), [{"a": [MAX]}, None]),
         [{"a": [OUT]}, None]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "+23:59", "Asia/Kolkata", "Nowhere/City"])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_time_inside_a_column_that_no_calendar_reaches_is_its_value(
    tmp_path: Path,
    wrapped: Callable[..., tuple[pa.DataType, Any]],
    readable: Any,
    zone: str,
    unit: str,
) -> None:
    type_, value = wrapped(pa.timestamp(unit, zone))
    numbers, _ = wrapped(pa.int64())
    # The null and the second row have the offsets that a slice leaves.
    column = pa.array([None, value, None], numbers).cast(type_).slice(1)
    table = pa.table({"text": ["good", "bad"], "c": column})
    found, missing = readable_table(table, "text").column("c").to_pylist()
    assert (json.loads(json.dumps(found)), missing) == (readable, None)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("year", [1, 1677, 2026, 2263, 9999])
def test_time_in_the_form_of_spark_keeps_its_year(tmp_path: Path, suffix: str, year: int) -> None:
    column = pa.array([datetime(year, 12, 31, 1, 2, 3, 456_789, UTC)], pa.timestamp("us"))
    found = scored(tmp_path, column, suffix, use_deprecated_int96_timestamps=True)
    assert found == f"{year:04}-12-31 01:02:03.456789"


def test_column_that_arrow_cannot_convert_is_refused_in_one_line(tmp_path: Path) -> None:
    column = pa.array([[1]], pa.list_view(pa.int64()))
    with pytest.raises(InvalidInput, match=r"^the rows after row 0 have values that cannot be"):
        scored(tmp_path, column, ".csv")
