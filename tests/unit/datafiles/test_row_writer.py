"""Files of rows are written whole or not at all, and for their owner alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.private_files import FILE_MODE
from datafiles.formats import Format
from datafiles.row_writer import write_rows


@pytest.mark.parametrize("format_", list(Format))
def test_file_of_rows_is_for_its_owner_alone(tmp_path: Path, format_: Format) -> None:
    file = tmp_path / "rows"
    file.write_text("readable by all")
    file.chmod(0o644)
    write_rows(file, format_, ["text"], [["a text of a client"]])
    assert file.stat().st_mode & 0o777 == FILE_MODE
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_link_of_another_user_is_replaced(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    victim, file = tmp_path / "victim", tmp_path / "rows.csv"
    victim.write_text("kept")
    link(file, victim)
    write_rows(file, Format.csv, ["text"], [["a text"]])
    assert (victim.read_text(), file.read_text()) == ("kept", "text\na text\n")


def test_two_processes_that_write_a_file_disturb_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"

    def rows() -> Iterator[list[str]]:
        yield ["mine"]
        child = os.fork()
        if not child:
            os._exit(write_rows(file, Format.csv, ["text"], [["another's"]]) - 1)
        assert os.waitpid(child, 0)[1] == 0
        yield ["mine too"]

    assert write_rows(file, Format.csv, ["text"], rows()) == 2
    assert file.read_text().split("\n") == ["text", "mine", "mine too", ""]


def test_row_group_of_long_texts_is_bounded(tmp_path: Path) -> None:
    """It is in memory while it is written."""
    file = tmp_path / "rows.parquet"
    write_rows(file, Format.parquet, ["text"], (["x" * 100_000] for _ in range(100)))
    written = pq.ParquetFile(file)
    assert written.metadata.num_rows == 100
    assert written.num_row_groups == 3
