"""Reading and writing of each format, and the rejection of bad rows."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.chunks import CHUNK_ROWS
from datafiles.formats import Format
from datafiles.lines import MAX_LINE_BYTES
from tests.unit.scoring.score_rows import (
    read_rows,
    rejected,
    rows_of,
    write_rows,
)
from tests.unit.scoring.scorers import score


def test_bad_csv_rows_are_rejected_with_line_and_reason(tmp_path: Path) -> None:
    good, bad = rows_of(
        tmp_path,
        "in.csv",
        b'\xef\xbb\xbfid,text\r\n1,one\r\n2,two,too\r\n3\r\n\r\n4,"four\nlines"\r\n5,"a"b\r\n'
        b"6,\xff\r\n7, \x1f \r\n8," + b"x" * MAX_LINE_BYTES + b"\r\n9,nine\r\n10,\"open\r\n11,end",
    )  # fmt: skip
    # The line after the open quote is a row of its own.
    assert good == ["one", "four\nlines", "nine", "end"]
    assert bad == [
        (3, "3 fields; the header has 2"),
        (4, "1 fields; the header has 2"),
        (8, "invalid CSV: ',' expected after '\"'"),
        (9, "not in UTF-8"),
        (10, "text: must not be blank"),
        (11, f"the line has {MAX_LINE_BYTES + 4:,} bytes; at most {MAX_LINE_BYTES:,} are allowed"),
        (13, "invalid CSV: unexpected end of data"),
    ]


def test_bad_json_rows_are_rejected_with_line_and_reason(tmp_path: Path) -> None:
    good, bad = rows_of(
        tmp_path,
        "in.jsonl",
        b'{"text":"one"}\n{"text":\n[1]\n\n{"other":1}\n{"text":2}\n{"text":"x","truncated":1}\n'
        b'{"text":"\xff"}\n  {"text":"last", "n": 123456789012345678901234567890.10 }  ',
    )
    assert good == ["one", "last"]
    assert [(line, reason.partition(":")[0]) for line, reason in bad] == [
        (2, "invalid JSON"),
        (3, "not a JSON object"),
        (5, "the member text is missing"),
        (6, "text"),
        (7, "already has result columns"),
        (8, "not in UTF-8"),
    ]
    # JSON lines to JSON lines keeps every digit of a number.
    assert b'"n": 123456789012345678901234567890.10,"sent' in (tmp_path / "out.jsonl").read_bytes()


def test_members_of_the_first_json_row_become_columns_and_others_are_rejected(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text(
        'no\n{"text":"a","n":1,"deep":{"x":[1]}}\n{"text":"b"}\n{"text":"c","new":1,"n":null}\n'
    )
    score(source, out, versions=("v2",))
    assert out.read_text() == (
        "text,n,deep,sentiment_v2,confidence_v2,truncated\n"
        'a,1,"{""x"":[1]}",negative,0.8,false\n'
        "b,,,negative,0.8,false\n"
    )
    assert [row["reason"] for row in rejected(out)][1:] == [
        "has members that the first row lacks: new"
    ]


def test_parquet_keeps_its_types_and_other_formats_get_strings(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("text", pa.dictionary(pa.int32(), pa.string())),
            ("at", pa.timestamp("ns", tz="UTC")),
            ("raw", pa.binary()),
            ("tags", pa.list_(pa.string())),
        ]
    )
    rows = [
        {"id": 1, "text": "good", "at": at, "raw": b"\xff", "tags": ["a"]},
        {"id": 2, "text": None, "at": None, "raw": None, "tags": None},
        {"id": 3, "text": "bad", "at": None, "raw": None, "tags": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), source)
    score(source, tmp_path / "out.parquet", versions=("v1",))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("at").type == pa.timestamp("ns", tz="UTC")
    assert table.schema.field("text").type == pa.string()
    assert table.column("id").to_pylist() == [1, 3]
    assert [row["line"] for row in rejected(tmp_path / "out.parquet")] == [2]
    score(source, tmp_path / "out.jsonl", versions=("v1",))
    assert read_rows(tmp_path / "out.jsonl")[0] == {
        "id": 1,
        "text": "good",
        "at": "2026-01-02 03:04:05.000000000Z",
        "raw": "/w==",
        "tags": ["a"],
        "sentiment_v1": "negative",
        "confidence_v1": 0.8,
        "truncated": False,
    }
    score(source, tmp_path / "out.csv", versions=("v1",), keep=["id", "tags"])
    assert (tmp_path / "out.csv").read_text() == (
        "id,tags,sentiment_v1,confidence_v1,truncated\n"
        '1,"[""a""]",negative,0.8,false\n3,,negative,0.8,false\n'
    )


@pytest.mark.parametrize("format_", list(Format))
@pytest.mark.parametrize("limit", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 3_000])
def test_limit_bounds_the_rows_that_are_read(tmp_path: Path, format_: Format, limit: int) -> None:
    source, out = tmp_path / f"in.{format_}", tmp_path / "out.jsonl"
    write_rows(source, ["", "x"] * 1_000)
    done = score(source, out, limit=limit)
    assert done.end.rows == done.scored + done.rejected == min(limit, 2_000)
    assert len(read_rows(out)) == done.scored


def test_quoted_csv_text_survives_a_round_trip(tmp_path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(['quoted "text",\r\n of lines'])
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\r\n" + text.getvalue().encode())
    score(source, tmp_path / "out.csv")
    assert read_rows(tmp_path / "out.csv")[0]["text"] == 'quoted "text",\r\n of lines'
