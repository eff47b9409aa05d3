"""Files that cannot be resumed or scored: the error says why, and the files stay unchanged."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import orjson
import pytest

from datafiles.chunks import InvalidInput, Position
from datafiles.formats import Format
from scoring.job import require_scored
from scoring.journal import CannotResume, Progress
from scoring.pipes import require_stdio
from tests.unit.scoring.score_rows import files_beside, read_rows, stopped_half_way, write_rows
from tests.unit.scoring.scorers import score


def test_run_with_another_input_or_options_cannot_be_resumed(tmp_path: Path) -> None:
    with stopped_half_way(tmp_path) as (source, out):
        with pytest.raises(
            CannotResume, match=r"other values of: columns\. Use the same values, or use --restart"
        ):
            score(source, out, keep=["number"])
        with pytest.raises(CannotResume, match="other values of: models"):
            score(source, out, versions=("v1",))
        source.write_text(source.read_text() + "6000,more\n")
        with pytest.raises(CannotResume, match="other values of: input"):
            score(source, out)
        assert score(source, out, restart=True).scored == 6_001
        assert len(read_rows(out)) == 6_001


def test_damaged_files_cannot_be_resumed(tmp_path: Path) -> None:
    with stopped_half_way(tmp_path) as (source, out):
        partial = out.with_name("out.csv.partial")
        whole = partial.read_bytes()
        partial.write_bytes(whole[:-1])
        with pytest.raises(CannotResume, match="is shorter than"):
            score(source, out)
        partial.write_bytes(whole)
        for content in (b"{", b'{"a":' * 9_000, b'{"a": "\xff"}'):
            out.with_name("out.csv.progress").write_bytes(content)
            with pytest.raises(CannotResume, match="cannot be read; use --restart"):
                score(source, out)


def test_existing_output_is_not_overwritten(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a"])
    out.write_text("mine")
    with pytest.raises(CannotResume, match="exists already; use --restart"):
        score(source, out)
    assert (out.read_text(), files_beside(out)) == ("mine", [])
    with pytest.raises(InvalidInput, match="OUT is the same file as IN"):
        score(source, source, restart=True)


def test_second_process_cannot_write_the_same_output(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a"])

    def meanwhile(_: int) -> None:
        with pytest.raises(CannotResume, match="another process is writing"):
            score(source, out)

    assert score(source, out, before=meanwhile).scored == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.txt", "text\na\n", "must end in .csv, .tsv, .jsonl or .parquet"),
        ("in.csv", "", "must begin with the names"),
        ("in.csv", "a,b\n1,2\n", "no column text; the columns are: a, b"),
        ("in.csv", "text,text\n1,2\n", "columns 1 and 2 have the same name: text"),
        ("in.csv", "text,truncated\n1,2\n", "already has result columns: truncated"),
        ("in.csv", '"text\n', "the header cannot be read"),
        ("in.parquet", "text", "not a Parquet file"),
    ],
)
def test_invalid_file_is_refused_with_its_reason(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=reason):
        score(tmp_path / name, tmp_path / "out.csv")
    assert files_beside(tmp_path / "out.csv") == []


def test_progress_file_keeps_the_keys_of_earlier_releases(tmp_path: Path) -> None:
    with stopped_half_way(tmp_path) as (_, out):
        progress = json.loads(out.with_name("out.csv.progress").read_bytes())
        assert progress.keys() == {
            "about", "end", "output_bytes", "rejected_bytes", "scored", "rejected", "is_complete",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "name", "options", "sentence"),
    [
        (
            b"text\n  \n",
            "in.csv",
            "--column, --delimiter, --encoding",
            "the only row was rejected, in",
        ),
        (
            b'{"a":1}\n[]\n',
            "in.jsonl",
            "--column, --encoding",
            "all 2 rows were rejected, the first in",
        ),
    ],
)
def test_file_without_a_usable_row_is_refused_with_options_of_its_format(
    tmp_path: Path, content: bytes, name: str, options: str, sentence: str
) -> None:
    rejected = tmp_path / "out.csv.rejected.jsonl"
    rejected.write_bytes(orjson.dumps({"line": 2, "reason": "it is blank"}) + b"\n")
    out = tmp_path / "out.csv"
    out.touch()
    rows = sentence.startswith("all") + 1
    with pytest.raises(InvalidInput, match=re.escape(f"{sentence} line 2: it is blank")) as refused:
        require_scored(
            Progress({}, Position(), rejected=rows), out, rejected, Format.of(Path(name))
        )
    assert (refused.value.option, out.exists()) == (options, False)


@pytest.mark.parametrize(
    ("source", "out", "stream", "sentence"),
    [
        ("-", "out.csv", "stdin", "stdin is closed"),
        ("-", "-", "stdin", "stdin is closed"),
        ("in.csv", "-", "stdout", "stdout is closed"),
    ],
)
def test_closed_stream_is_refused_before_a_model_is_loaded(
    source: str, out: str, stream: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python starts where the descriptor is closed.
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(InvalidInput, match=sentence):
        require_stdio(Path(source), Path(out))
