"""Every CSV file of the table is read right, or refused with its sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from datafiles.chunks import InvalidInput, Position, Rejection
from datafiles.formats import Format, Input, open_source
from tests.unit.datafiles.csv_files import CSV_FILES, CsvFile, Refused


@pytest.mark.parametrize("file", CSV_FILES.values(), ids=CSV_FILES)
def test_csv_file_is_read_right_or_refused(tmp_path: Path, file: CsvFile) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(file.content)
    source = Input(path, Format.csv, file.encoding, file.delimiter)
    if isinstance(file.right, Refused):
        with pytest.raises(InvalidInput) as caught:
            open_source(source, file.column, None)
        assert file.right.sentence in str(caught.value)
        return
    opened = open_source(source, file.column, None, check=str)
    chunks = list(opened.chunks(Position(), None))
    rows = [list(row) for chunk in chunks for row in chunk.columns]
    rejected: list[Rejection] = [row for chunk in chunks for row in chunk.rejected]
    assert rows == file.right.rows
    assert opened.names == file.right.names
    assert [text for chunk in chunks for text in chunk.texts] == [
        row[file.right.column] for row in file.right.rows
    ]
    reasons = tuple((row.line, row.reason.partition(":")[0]) for row in rejected)
    assert reasons == file.right.rejected
