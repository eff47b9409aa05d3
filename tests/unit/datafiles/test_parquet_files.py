"""Parquet columns of every type are repeated; a row is rejected for its fault, never the file."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.chunks import InvalidInput
from tests.unit.scoring.score_rows import read_rows, rejected
from tests.unit.scoring.scorers import score

TEXTS = ["good", None, "a bad film"]
DAY = 86_400


def dictionary(values: list[Any]) -> pa.Array:
    return pa.array(values).dictionary_encode()


def list_of_dictionaries() -> pa.Array:
    return pa.ListArray.from_arrays([0, 1, 1, 3], dictionary(["a", "b", "a"]))


def struct_of_dictionaries() -> pa.Array:
    return pa.StructArray.from_arrays([dictionary(["a", "b", "a"])], ["x"])


def map_of_dictionaries() -> pa.Array:
    return pa.MapArray.from_arrays([0, 1, 1, 2], pa.array(["k", "k"]), dictionary(["a", "b"]))


# A column of three rows, the values of rows 1 and 3 in a Parquet output, and their JSON.
COLUMNS: dict[str, tuple[Callable[[], pa.Array], list[Any] | None, list[Any]]] = {
    "string_view": (lambda: pa.array(["a", "b", "ä"], pa.string_view()), ["a", "ä"], ["a", "ä"]),
    "binary_view": (
        lambda: pa.array([b"\xff", b"", b"\0"], pa.binary_view()),
        [b"\xff", b"\0"],
        ["/w==", "AA=="],
    ),
    "large_string": (
        lambda: pa.array(["a", "b", None], pa.large_string()),
        ["a", None],
        ["a", None],
    ),
    "list of views": (
        lambda: pa.array([["a"], [], ["b", None]], pa.list_(pa.string_view())),
        [["a"], ["b", None]],
        [["a"], ["b", None]],
    ),
    "struct of views": (
        lambda: pa.array([{"x": "a"}, None, {"x": None}], pa.struct([("x", pa.string_view())])),
        [{"x": "a"}, {"x": None}],
        [{"x": "a"}, {"x": None}],
    ),
    "dictionary": (lambda: dictionary(["a", "b", "a"]), ["a", "a"], ["a", "a"]),
    "dictionary of numbers": (lambda: dictionary([7, 8, 7]), [7, 7], [7, 7]),
    "list of dictionaries": (list_of_dictionaries, [["a"], ["b", "a"]], [["a"], ["b", "a"]]),
    "struct of dictionaries": (
        struct_of_dictionaries,
        [{"x": "a"}, {"x": "a"}],
        [{"x": "a"}, {"x": "a"}],
    ),
    "map of dictionaries": (
        map_of_dictionaries,
        [[("k", "a")], [("k", "b")]],
        [[["k", "a"]], [["k", "b"]]],
    ),
    "NaN and infinity": (
        lambda: pa.array([math.inf, 0.0, -math.inf]),
        [math.inf, -math.inf],
        ["Infinity", "-Infinity"],
    ),
    "NaN in a list": (
        lambda: pa.array([[math.inf], [], [1.5, None]]),
        [[math.inf], [1.5, None]],
        [["Infinity"], [1.5, None]],
    ),
    "float32 and minus zero": (
        lambda: pa.array([-0.0, 1.0, 0.5], pa.float32()),
        [-0.0, 0.5],
        [-0.0, 0.5],
    ),
    "uint64": (lambda: pa.array([2**64 - 1, 0, 1], pa.uint64()), [2**64 - 1, 1], [2**64 - 1, 1]),
    "decimal": (
        lambda: pa.array([Decimal("1.10"), None, Decimal("-0.01")], pa.decimal128(38, 2)),
        [Decimal("1.10"), Decimal("-0.01")],
        ["1.10", "-0.01"],
    ),
    "decimal of 76 digits": (
        lambda: pa.array([Decimal("9" * 76), None, Decimal(0)], pa.decimal256(76, 0)),
        [Decimal("9" * 76), Decimal(0)],
        ["9" * 76, "0"],
    ),
    "a day before year 1": (
        lambda: pa.array([-800_000, 0, DAY], pa.date32()).cast(pa.date32()),
        None,
        ["-0221-09-04", "2206-07-23"],
    ),
    "a time after year 9999": (
        lambda: pa.array([253402300800000, 0, 0], pa.timestamp("ms")),
        None,
        ["10000-01-01 00:00:00.000", "1970-01-01 00:00:00.000"],
    ),
    "nanoseconds in a list": (
        lambda: pa.array([[1], [], [2]], pa.list_(pa.timestamp("ns"))),
        None,
        [["1970-01-01 00:00:00.000000001"], ["1970-01-01 00:00:00.000000002"]],
    ),
    "a time zone that nobody knows": (
        lambda: pa.array([0, 0, 1], pa.timestamp("ms", "Nowhere/There")),
        None,
        ["1970-01-01 00:00:00.000Z", "1970-01-01 00:00:00.001Z"],
    ),
    "durations of nanoseconds": (lambda: pa.array([1, 2, -3], pa.duration("ns")), None, [1, -3]),
    "nulls": (lambda: pa.nulls(3), [None, None], [None, None]),
    "bytes of one size": (
        lambda: pa.array([b"ab", b"cd", b"ef"], pa.binary(2)),
        [b"ab", b"ef"],
        ["YWI=", "ZWY="],
    ),
    "booleans": (lambda: pa.array([True, None, False]), [True, False], [True, False]),
}


@pytest.mark.parametrize(("make", "values", "as_json"), COLUMNS.values(), ids=COLUMNS)
def test_column_of_every_type_is_repeated_when_a_row_is_rejected(
    tmp_path: Path, make: Callable[[], pa.Array], values: list[Any] | None, as_json: list[Any]
) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": TEXTS, "other": make()}), source)
    for ending in ("parquet", "jsonl", "csv"):
        out = tmp_path / f"out.{ending}"
        done = score(source, out)
        assert (done.scored, done.rejected) == (2, 1)
        assert [row["line"] for row in rejected(out)] == [2]
    if values is not None:
        assert pq.read_table(tmp_path / "out.parquet").column("other").to_pylist() == values
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["other"] for line in lines] == as_json


@pytest.mark.parametrize(
    "type_",
    [
        pa.string_view(), pa.binary_view(), pa.binary(), pa.large_binary(), pa.large_string(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)  # fmt: skip
def test_texts_of_every_string_type_are_scored(tmp_path: Path, type_: pa.DataType) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": pa.array(["good", None, "schön"]).cast(type_)}), source)
    out = tmp_path / "out.jsonl"
    assert score(source, out).scored == 2
    assert [row["reason"] for row in rejected(out)] == ["text: Input should be a valid string"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)], ids=str
)
def test_texts_of_bytes_are_written_as_they_were_read(
    tmp_path: Path, type_: pa.DataType, ending: str
) -> None:
    # Impala and old writers of Spark leave out that bytes are UTF-8.
    texts = pa.array([b"good", None, b"\xe9\xe9\xe9\xe9", "öö".encode()]).cast(type_)
    others = pa.array([b"\xff\0"] * 4)
    source, out = tmp_path / "in.parquet", tmp_path / f"out.{ending}"
    pq.write_table(pa.table({"other": others, "text": texts}), source)
    assert score(source, out).scored == 2
    if ending == "parquet":
        table = pq.read_table(out)
        assert table.column("text").to_pylist() == [b"good", "öö".encode()]
    else:
        rows = read_rows(out)
        assert [row["text"] for row in rows] == ["good", "öö"]
        assert [row["other"] for row in rows] == ["/wA=", "/wA="]


def test_values_that_cannot_be_read_are_no_fault_of_the_format(tmp_path: Path) -> None:
    # As polars writes integers of 128 bits: in the Arrow schema that is in the file.
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": [1]}), source)
    stored = pq.read_metadata(source).metadata[b"ARROW:schema"]
    wide = base64.b64encode(base64.b64decode(stored).replace(b"\x40\0\0\0", b"\x80\0\0\0"))
    source.write_bytes(source.read_bytes().replace(stored, wide))
    with pytest.raises(InvalidInput, match="it has values that cannot be read: Integers with"):
        score(source, tmp_path / "out.csv")


def with_broken_bytes(values: list[bytes]) -> pa.Array:
    """Strings of which some are not UTF-8, as old writers leave them in a file."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), array.buffers())


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("column", ["text", "note", "deep"])
def test_row_with_bytes_that_are_not_utf_8_is_rejected_alone(
    tmp_path: Path, ending: str, column: str
) -> None:
    good = pa.array(["a", "ä", "c", "d"])
    broken = with_broken_bytes([b"a", "ä".encode(), b"caf\xe9", b"d"])
    columns = {"text": good, "note": good, "deep": good} | {column: broken}
    columns["deep"] = pa.StructArray.from_arrays([columns["deep"]], ["x"])
    source, out = tmp_path / "in.parquet", tmp_path / f"out.{ending}"
    pq.write_table(pa.table(columns), source)
    assert score(source, out).scored == 3
    [row] = rejected(out)
    assert (row["line"], row["reason"]) == (3, f"column {column}: not in UTF-8")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"text": pa.array([1, 2])}, "the column text holds int64, no texts"),
        ({"text": pa.array([["a"]])}, r"the column text holds list<.*>, no texts"),
        ({"Review": pa.array(["a"])}, "no column text; the columns are: Review"),
        ({"Text": pa.array(["a"]), "TEXT": pa.array(["b"])}, "columns 1 and 2 have the same name"),
    ],
)  # fmt: skip
def test_file_without_texts_is_refused(
    tmp_path: Path, table: dict[str, pa.Array], sentence: str
) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table(table), source)
    with pytest.raises(InvalidInput, match=sentence):
        score(source, tmp_path / "out.csv")


def test_damaged_page_is_refused_with_its_place(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    rows = [f"text {n} " * 20 for n in range(3_000)]
    pq.write_table(pa.table({"text": rows}), source, row_group_size=1_000, use_dictionary=False)
    content = bytearray(source.read_bytes())
    middle = pq.read_metadata(source).row_group(1).column(0).data_page_offset
    content[middle : middle + 400] = bytes(400)
    source.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"the rows after row [\d,]+ cannot be read"):
        score(source, tmp_path / "out.csv")
