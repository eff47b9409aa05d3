"""What cannot be gone on with, or scored at all, is told and left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.chunks import InvalidInput
from scoring.journal import CannotResume
from tests.unit.scoring.score_rows import beside, read_rows, stopped_half_way, write_rows
from tests.unit.scoring.scorers import score


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
