"""Who watches a file being read can end that, wherever it is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.chunks import InvalidInput, Position
from datafiles.formats import Format, Input, open_source
from datafiles.watched import opening_watch
from tests.unit.datafiles.test_compression import PACKERS

ROWS = 60_000
CSV = ("text\n" + "".join(f"row {number} of a film\n" for number in range(ROWS))).encode()


class Ended(Exception):
    """The watcher has seen enough."""


class Watch:
    """Ends the reading once it is told to."""

    def __init__(self) -> None:
        self.ends = False
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.ends:
            raise Ended


def written(path: Path) -> Path:
    if path.suffix == ".parquet":
        texts = pa.array([f"row {number} of a film" for number in range(ROWS)])
        pq.write_table(pa.table({"text": texts}), path, row_group_size=5_000)
    else:
        path.write_bytes(PACKERS.get(path.suffix, bytes)(CSV))
    return path


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.csv.zst", "in.parquet"])
def test_reading_ends_within_a_chunk_and_on_the_way_to_it(tmp_path: Path, name: str) -> None:
    watch = Watch()
    path = written(tmp_path / name)
    source = open_source(Input(path, Format.of(path), watch=watch), "text", None)
    chunks = source.chunks(Position(), None)
    first = next(chunks)
    watch.ends = True
    with pytest.raises(Ended):
        list(chunks)
    # To the last rows there is a way to go, as after a restart.
    watch.ends, watch.calls = False, 0
    *_, before, last = source.chunks(first.end, None)
    assert last.end.rows == ROWS
    watch.ends = True
    with pytest.raises(Ended):
        list(source.chunks(before.end, None))
    watch.ends = False
    [again] = source.chunks(before.end, None)
    assert again.texts == last.texts


def test_file_of_which_nothing_is_known_after_seconds_of_work_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(b"text\none\n") + gzip.compress(b"x") * 4_000_000)
    with pytest.raises(InvalidInput, match="after 2 s of work it is not known what is in it"):
        open_source(Input(path, Format.csv, watch=opening_watch()), "text", None)


def test_record_of_very_many_lines_is_watched(tmp_path: Path) -> None:
    """Compressed, a megabyte of line ends is a kilobyte, and one read of the file."""
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(b'text\n"' + b"\n" * 1_000_000 + b'"\n'))
    watch = Watch()
    source = open_source(Input(path, Format.csv, watch=watch), "text", None)
    watch.calls = 0
    list(source.chunks(Position(), None))
    assert watch.calls > 200
