"""A Parquet file that ends the process which reads it ends the pilot, and is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import ROOT
from datafiles.chunks import Chunk, InvalidInput, Position
from datafiles.parquet_pilot import Flight, Pilot, piloted
from datafiles.parquet_source import ParquetSource
from tests.parquet import encrypted_parquet

ROWS = 9_000


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.parquet"
    texts = [f"text {number}" * (number % 7) for number in range(ROWS)]
    table = pa.table({"id": pa.array(range(ROWS)), "text": texts})
    pq.write_table(table, file, row_group_size=2_500)
    return file


def source(path: Path, *, is_piloted: bool, watch: Callable[[], object] = int) -> ParquetSource:
    return ParquetSource(
        path, "text", ["id"], str, is_bounded=True, is_piloted=is_piloted, watch=watch
    )


def plain(chunks: list[Chunk]) -> list[object]:
    return [
        (chunk.texts, chunk.lines, chunk.columns.to_pylist(), chunk.rejected, chunk.end)  # type: ignore[union-attr]
        for chunk in chunks
    ]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("start", "limit", "text_bytes"),
    [(0, None, 256 << 10), (0, None, 5_000), (4_000, None, 20_000), (0, 1_500, 10_000),
     (ROWS, None, 1_000), (0, 0, 1_000)],
)  # fmt: skip
def test_chunks_are_those_of_the_file_without_a_pilot(
    rows: Path, start: int, limit: int | None, text_bytes: int
) -> None:
    before = children()
    found, expected = (
        plain(
            [*source(rows, is_piloted=is_piloted).chunks(Position(rows=start), limit, text_bytes)]
        )
        for is_piloted in (True, False)
    )
    assert found == expected
    assert not children() - before


def test_encrypted_column_beside_a_plain_table_of_contents_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "encrypted.parquet"
    file.write_bytes(encrypted_parquet())
    with pytest.raises(InvalidInput, match=r"the file cannot be read: it is damaged or encrypted"):
        ParquetSource(file, "text", None, str, is_bounded=True, is_piloted=True)


def test_file_that_the_pilot_refuses_is_refused_in_its_words(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InvalidInput, match="not a Parquet file"):
        source(tmp_path / "no.parquet", is_piloted=True)
    with pytest.raises(InvalidInput) as refusal:
        ParquetSource(rows, "body", None, str, is_piloted=True)
    assert refusal.value.option == "--column"


def test_pilot_that_dies_within_the_file_ends_the_reading(rows: Path) -> None:
    before = children()
    flight = Flight("text", None, is_bounded=True, text_bytes=1)

    def read_on(pilot: Pilot) -> None:
        while True:
            pilot.advance("row 7")

    with piloted(rows, flight, int) as pilot:
        [process] = children() - before
        os.kill(process, signal.SIGKILL)
        with pytest.raises(InvalidInput, match=r"row 7 cannot be read: it is damaged .* \(SIGKILL"):
            read_on(pilot)
    assert not children() - before


def test_who_watches_ends_the_reading(rows: Path) -> None:
    class Removed(Exception):
        pass

    def end() -> None:
        raise Removed

    before = children()
    with pytest.raises(Removed):
        source(rows, is_piloted=True, watch=end)
    chunks = source(rows, is_piloted=True).chunks(Position(), None)
    next(chunks)
    chunks.close()  # as where a job is removed
    assert not children() - before


def test_pilot_that_takes_a_core_for_too_long_is_ended_and_told() -> None:
    program = "from datafiles.parquet_pilot import limit_work\nlimit_work(0.1)\nwhile True: pass"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        with pytest.raises(InvalidInput, match="it takes too long"):
            Pilot(process, int).advance("the file")
        assert process.returncode == -signal.SIGXCPU
