"""gzip files are read as the standard library reads them, and those of empty members refused."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafiles.chunks import InvalidInput
from datafiles.gunzip import EMPTY_MEMBERS, Gunzip
from tests.unit.scoring.score_rows import rows_of

EMPTY = gzip.compress(b"")
RESERVED_FLAGS = 0b1110_0000


def unpacked(packed: bytes, size: int = 1 << 16) -> bytes:
    with io.BufferedReader(io.BytesIO(packed)) as file, Gunzip(file) as gunzip:
        pieces = []
        while piece := gunzip.read(size):
            pieces.append(piece)
        return b"".join(pieces)


@given(
    st.lists(st.tuples(st.binary(max_size=3_000), st.integers(0, 9), st.integers(0, 600))),
    st.integers(1, 1 << 17),
)
def test_members_with_zeros_between_them_are_read_as_by_the_standard_library(
    members: list[tuple[bytes, int, int]], size: int
) -> None:
    packed = gzip.compress(b"first") + b"".join(
        gzip.compress(content * (1 + level * 40), level) + bytes(zeros)
        for content, level, zeros in members
    )
    assert unpacked(packed, size) == gzip.decompress(packed)


@given(st.binary(min_size=1, max_size=5_000), st.data())
def test_damaged_file_is_an_error_or_what_the_standard_library_reads(
    content: bytes, data: st.DataObject
) -> None:
    packed = bytearray(gzip.compress(content) + gzip.compress(content))
    at = data.draw(st.integers(2, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        expected = gzip.decompress(packed)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        with pytest.raises((EOFError, zlib.error)):
            unpacked(bytes(packed))
    else:
        try:
            assert unpacked(bytes(packed)) == expected
        except zlib.error:
            # RFC 1952, 2.3.1.2: reserved flags are an error; the standard library passes over them.
            second = len(gzip.compress(content))
            assert (packed[3] | packed[second + 3]) & RESERVED_FLAGS


def test_empty_members_are_read_but_not_without_end(tmp_path: Path) -> None:
    rows = gzip.compress(b"text\n") + EMPTY * EMPTY_MEMBERS + gzip.compress(b"one\n") + EMPTY
    assert rows_of(tmp_path, "in.csv.gz", rows)[0] == ["one"]
    with pytest.raises(InvalidInput, match="nearly all of its first 1,006 gzip members are empty"):
        rows_of(tmp_path, "many.csv.gz", gzip.compress(b"text\n") + EMPTY * 500_000)


def test_member_for_each_line_is_read(tmp_path: Path) -> None:
    lines = b"".join(gzip.compress(b"line %d\n" % number) for number in range(3_000))
    assert len(rows_of(tmp_path, "in.csv.gz", gzip.compress(b"text\n") + lines)[0]) == 3_000
