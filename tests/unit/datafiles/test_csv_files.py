"""Every CSV file of the table is read right, or refused with its sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.datafiles.csv_files import CSV_FILES, CsvFile, Refused, read


@pytest.mark.parametrize("file", CSV_FILES.values(), ids=CSV_FILES)
def test_csv_file_is_read_right_or_refused(tmp_path: Path, file: CsvFile) -> None:
    answer = read(file, tmp_path / "in.csv")
    if isinstance(file.right, Refused):
        assert isinstance(answer, Refused)
        assert file.right.sentence in answer.sentence
    else:
        assert answer == file.right
