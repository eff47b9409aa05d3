"""Any mix of rows comes out once and in order, in every format, however often it was stopped."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.scoring.chunks import CHUNK_ROWS, InvalidInput
from scripts.scoring.job import Format
from scripts.scoring.journal import CannotResume
from scripts.scoring.lines import MAX_LINE_BYTES
from tests.unit.scoring import counted, score

ROOT = Path(__file__).parent.parent.parent
GOOD = 'a good, "quoted"\nfilm'
BAD = {"": "empty", "x" * 5_001: "long", "nul \x00": "nul"}
FORMATS = [(a, b) for a in Format for b in Format]


class Killed(BaseException):
    """As if the process were gone."""


def write_rows(path: Path, texts: list[str]) -> None:
    """Rows of `number` and `text`, in the format of the name."""
    rows = [{"number": str(number), "text": text} for number, text in enumerate(texts)]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["number", "text"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        schema = pa.schema([("number", pa.string()), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=700)


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [
                {
                    **row,
                    "confidence_v1": float(row["confidence_v1"]),
                    "confidence_v2": float(row["confidence_v2"]),
                    "truncated": {"true": True, "false": False}[row["truncated"]],
                }
                for row in csv.DictReader(file)
            ]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def rejected(out: Path) -> list[dict[str, Any]]:
    path = out.with_name(out.name + ".rejected.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def expected(texts: list[str]) -> list[dict[str, Any]]:
    rows = []
    for number, text in enumerate(texts):
        if text not in BAD:
            told = counted(len(text.split()))
            sentiment, confidence = told.sentiment, round(told.confidence, 6)
            rows.append(
                {
                    "number": str(number),
                    "text": text,
                    "sentiment_v1": sentiment,
                    "confidence_v1": confidence,
                    "sentiment_v2": sentiment,
                    "confidence_v2": confidence,
                    "truncated": told.truncated,
                }
            )
    return rows


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob(f"{out.name}?*"))


def killer(computed: int) -> Callable[[int], None]:
    """Dies after so many texts."""
    left = computed

    def count(texts: int) -> None:
        nonlocal left
        left -= texts
        if left < 0:
            raise Killed

    return count


@settings(max_examples=25, deadline=None)
@given(
    formats=st.sampled_from(FORMATS),
    pattern=st.lists(st.sampled_from([GOOD, "x " * 120, *BAD]), min_size=1, max_size=30),
    rows=st.integers(0, 3 * CHUNK_ROWS),
    kills=st.lists(
        st.tuples(st.integers(0, 9 * CHUNK_ROWS), st.binary(max_size=40), st.binary(max_size=40)),
        max_size=4,
    ),
)
def test_every_row_comes_out_once_and_in_order_whatever_was_killed(
    formats: tuple[Format, Format],
    pattern: list[str],
    rows: int,
    kills: list[tuple[int, bytes, bytes]],
) -> None:
    texts = (pattern * (rows // len(pattern) + 1))[:rows]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / f"in.{formats[0]}", Path(folder) / f"out.{formats[1]}"
        write_rows(source, texts)
        for computed, torn_output, torn_rejects in kills:
            try:
                score(source, out, before=killer(computed))
            except Killed:
                # What was on its way to the disk.
                for suffix, torn in ((".partial", torn_output), (".rejected.jsonl", torn_rejects)):
                    with out.with_name(out.name + suffix).open("ab") as file:
                        file.write(torn)
            else:
                break
        else:
            score(source, out)
        assert read_rows(out) == expected(texts)
        assert len(rejected(out)) == sum(text in BAD for text in texts)
        kept = [f"{out.name}.rejected.jsonl"] if set(texts) & BAD.keys() else []
        assert beside(out) == kept

        whole = out.with_name(f"whole.{formats[1]}")
        score(source, whole)
        assert out.read_bytes() == whole.read_bytes()
        assert rejected(out) == rejected(whole)


def test_a_process_killed_at_random_moments_leaves_what_one_that_was_not_writes(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.parquet"
    draw = random.Random(7)
    write_rows(source, [draw.choice([GOOD, "x", *BAD]) for _ in range(25_000)])
    score(source, tmp_path / "whole.parquet")
    command = [sys.executable, "-m", "tests.unit.scoring", str(source), str(out)]
    kills = 0
    for _ in range(5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            # From its first bytes on, at any moment.
            told = out.with_name("out.parquet.progress")
            before = told.read_bytes() if told.exists() else b""
            while process.poll() is None and (not told.exists() or told.read_bytes() == before):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if out.exists() and not told.exists():
            break
    assert kills > 1
    if not out.exists():
        subprocess.run(command, cwd=ROOT, check=True)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert rejected(out) == rejected(tmp_path / "whole.parquet")
    assert beside(out) == ["out.parquet.rejected.jsonl"]


@pytest.mark.parametrize("format_", list(Format))
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path, format_: Format) -> None:
    peaks_mib = []
    for rows in (2_500, 25_000):
        source = tmp_path / f"{rows}.{format_}"
        write_rows(source, ["a text of some length, as many are " * 5] * rows)
        out = tmp_path / f"out-{rows}.{format_}"
        command = [sys.executable, "-m", "tests.unit.scoring", str(source), str(out)]
        peaks_mib.append(int(subprocess.check_output(command, cwd=ROOT)) >> 10)
    # A row group of Parquet is in memory while it is written, and the first is not full yet.
    assert peaks_mib[1] < peaks_mib[0] + (60 if format_ is Format.parquet else 15)


def rows_of(
    tmp_path: Path, name: str, content: bytes, **options: Any
) -> tuple[list[Any], list[Any]]:
    """The texts that were scored of a file, and (line, reason) of what was not."""
    source, out = tmp_path / name, tmp_path / "out.jsonl"
    source.write_bytes(content)
    score(source, out, **options)
    told = [(each["line"], each["reason"]) for each in rejected(out)]
    return [row["text"] for row in read_rows(out)], told


def test_bad_csv_is_passed_over_with_its_line_and_reason(tmp_path: Path) -> None:
    good, bad = rows_of(
        tmp_path,
        "in.csv",
        b'\xef\xbb\xbfid,text\r\n1,one\r\n2,two,too\r\n3\r\n\r\n4,"four\nlines"\r\n5,"a"b\r\n'
        b"6,\xff\r\n7, \x1f \r\n8," + b"x" * MAX_LINE_BYTES + b"\r\n9,nine\r\n10,\"open\r\n11,end",
    )  # fmt: skip
    assert good == ["one", "four\nlines", "nine"]
    assert bad == [
        (3, "3 fields; the header has 2"),
        (4, "1 fields; the header has 2"),
        (8, "no valid CSV: ',' expected after '\"'"),
        (9, "not in UTF-8"),
        (10, "text: must not be blank"),
        (11, f"a line of {MAX_LINE_BYTES + 4:,} bytes; at most {MAX_LINE_BYTES:,} are read"),
        (13, "no valid CSV: unexpected end of data"),
    ]


def test_bad_json_is_passed_over_with_its_line_and_reason(tmp_path: Path) -> None:
    good, bad = rows_of(
        tmp_path,
        "in.jsonl",
        b'{"text":"one"}\n{"text":\n[1]\n\n{"other":1}\n{"text":2}\n{"text":"x","truncated":1}\n'
        b'{"text":"\xff"}\n  {"text":"last", "n": 123456789012345678901234567890.10 }  ',
    )
    assert good == ["one", "last"]
    assert [(line, reason.partition(":")[0]) for line, reason in bad] == [
        (2, "no valid JSON"),
        (3, "no JSON object"),
        (5, "no 'text'"),
        (6, "text"),
        (7, "has truncated already"),
        (8, "no valid JSON"),
    ]
    # What goes over from JSON to JSON is what was there, to the last digit.
    assert b'"n": 123456789012345678901234567890.10,"sent' in (tmp_path / "out.jsonl").read_bytes()


def test_json_of_one_shape_becomes_columns_and_other_keys_are_told(tmp_path: Path) -> None:
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
    assert [each["reason"] for each in rejected(out)][1:] == [
        "has new, which the first row has not"
    ]


def test_parquet_keeps_its_types_and_tells_them_as_strings_elsewhere(tmp_path: Path) -> None:
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
    assert [each["line"] for each in rejected(tmp_path / "out.parquet")] == [2]
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
def test_no_more_rows_are_read_than_asked_for(tmp_path: Path, format_: Format, limit: int) -> None:
    source, out = tmp_path / f"in.{format_}", tmp_path / "out.jsonl"
    write_rows(source, ["", "x"] * 1_000)
    done = score(source, out, limit=limit)
    assert done.end.rows == done.scored + done.rejected == min(limit, 2_000)
    assert len(read_rows(out)) == done.scored


@contextmanager
def stopped_half_way(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a b c"] * 6_000)
    with pytest.raises(Killed):
        score(source, out, before=killer(9_000))
    yield source, out


def test_another_input_or_other_options_are_no_way_to_go_on(tmp_path: Path) -> None:
    with stopped_half_way(tmp_path) as (source, out):
        with pytest.raises(CannotResume, match="another columns; take that, or --restart"):
            score(source, out, keep=["number"])
        with pytest.raises(CannotResume, match="another models"):
            score(source, out, versions=("v1",))
        source.write_text(source.read_text() + "6000,more\n")
        with pytest.raises(CannotResume, match="another input"):
            score(source, out)
        assert score(source, out, restart=True).scored == 6_001
        assert len(read_rows(out)) == 6_001


def test_what_is_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    with stopped_half_way(tmp_path) as (source, out):
        partial = out.with_name("out.csv.partial")
        whole = partial.read_bytes()
        partial.write_bytes(whole[:-1])
        with pytest.raises(CannotResume, match="lacks what"):
            score(source, out)
        partial.write_bytes(whole)
        out.with_name("out.csv.progress").write_text("{")
        with pytest.raises(CannotResume, match="cannot be read; --restart"):
            score(source, out)


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a"])
    out.write_text("mine")
    with pytest.raises(CannotResume, match="is there already; --restart"):
        score(source, out)
    assert (out.read_text(), beside(out)) == ("mine", [])
    with pytest.raises(InvalidInput, match="OUT is IN"):
        score(source, source, restart=True)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a"])

    def meanwhile(_: int) -> None:
        with pytest.raises(CannotResume, match="another process writes"):
            score(source, out)

    assert score(source, out, before=meanwhile).scored == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.txt", "text\na\n", "must end in .csv, .jsonl or .parquet"),
        ("in.csv", "", "begins with the names"),
        ("in.csv", "a,b\n1,2\n", "no column 'text'; there are: a, b"),
        ("in.csv", "text,text\n1,2\n", "two columns have one name"),
        ("in.csv", "text,truncated\n1,2\n", "columns of the result already: truncated"),
        ("in.csv", '"text\n', "the header cannot be read"),
        ("in.parquet", "text", "no Parquet file"),
    ],
)
def test_a_file_that_cannot_be_scored_is_told(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=reason):
        score(tmp_path / name, tmp_path / "out.csv")
    assert beside(tmp_path / "out.csv") == []


def test_csv_that_is_written_is_csv_that_is_read(tmp_path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(['quoted "text",\r\n of lines'])
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\r\n" + text.getvalue().encode())
    score(source, tmp_path / "out.csv")
    assert read_rows(tmp_path / "out.csv")[0]["text"] == 'quoted "text",\r\n of lines'
