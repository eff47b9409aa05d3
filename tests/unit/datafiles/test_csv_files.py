"""Every CSV file of the table is read right, or refused with its sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from datafiles.chunks import CHUNK_LINES, InvalidInput, Position
from datafiles.formats import Format, Input, open_source
from datafiles.records import BLANK_LINES_OF_A_ROW, MAX_BLANK_LINES
from tests.unit.datafiles.csv_files import CSV_FILES, CsvFile, Refused, read


@pytest.mark.parametrize("file", CSV_FILES.values(), ids=CSV_FILES)
def test_csv_file_is_read_right_or_refused(tmp_path: Path, file: CsvFile) -> None:
    answer = read(file, tmp_path / "in.csv")
    if isinstance(file.right, Refused):
        assert isinstance(answer, Refused)
        assert file.right.sentence in answer.sentence
    else:
        assert answer == file.right


@pytest.mark.parametrize("first_line", ['text " a"', 'sep= \ntext " a"'])
def test_run_of_blanks_that_delimit_takes_no_time(tmp_path: Path, first_line: str) -> None:
    """It took a minute, in one call that stopped all threads of the process."""
    file = tmp_path / "in.csv"
    file.write_text(f"{first_line}\n{' ' * 1_000_000}\n")
    delimiter = None if first_line.startswith("sep") else " "
    assert open_source(Input(file, Format.csv, None, delimiter), "text", None).names


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_blank_lines_end_a_chunk_so_that_its_reader_can_stop(tmp_path: Path, line_end: str) -> None:
    file = tmp_path / "in.csv"
    blank_lines = line_end * 2 * CHUNK_LINES
    file.write_text(f"text{line_end}first{line_end}{blank_lines}last{line_end}", newline="")
    source = open_source(Input(file, Format.csv), "text", None)
    chunks = list(source.chunks(Position(), None))
    assert [chunk.texts for chunk in chunks] == [["first"], [], ["last"]]
    # Where one ends the next begins.
    again = list(source.chunks(chunks[1].end, None))
    assert [(chunk.texts, chunk.end) for chunk in again] == [(["last"], chunks[2].end)]


def test_file_with_more_blank_lines_than_a_spreadsheet_has_rows_is_refused(tmp_path: Path) -> None:
    file, rows = tmp_path / "in.csv.gz", 3
    # None of these runs is too long; together they are.
    blank_lines = b"\n" * (MAX_BLANK_LINES // rows + BLANK_LINES_OF_A_ROW + 1)
    file.write_bytes(gzip.compress(b"text\n" + rows * (b"a text\n" + blank_lines)))
    source = open_source(Input(file, Format.csv), "text", None)
    with pytest.raises(InvalidInput, match=r"more than 2,097,\d52 blank lines, up to line 2,097,"):
        list(source.chunks(Position(), None))


def test_field_may_take_all_of_a_line(tmp_path: Path) -> None:
    file, large = tmp_path / "in.csv", "x" * 900_000
    file.write_text(f"text,other\ngood,{large}\n", encoding="utf-8")
    [chunk] = open_source(Input(file, Format.csv), "text", None).chunks(Position(), None)
    assert (chunk.texts, chunk.columns, chunk.rejected) == (["good"], [["good", large]], [])
