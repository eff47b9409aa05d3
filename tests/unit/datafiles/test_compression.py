"""gzip and zstd files are read as what is in them, resumed, and refused when damaged."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from datafiles.chunks import InvalidInput
from tests.unit.scoring.score_rows import Killed, killer, read_rows, rows_of
from tests.unit.scoring.scorers import score

CONTENT = 'text\nGröße\n"a\nb"\n'.encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize(("ending", "pack"), PACKERS.items())
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.csv", CONTENT),
        ("in.csv", CONTENT.decode().encode("utf-16")),
        ("in.csv", CONTENT.replace(b"\n", b"\r").replace(b"a\r", b"a\n")),
        ("in.tsv", CONTENT),
        ("in.jsonl", '{"text":"Größe"}\n{"text":"a\\nb"}\n'.encode()),
    ],
)
def test_packed_file_is_read_as_its_content(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], name: str, content: bytes
) -> None:
    assert rows_of(tmp_path, name + ending, pack(content)) == (["Größe", "a\nb"], [])


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_packing_is_found_whatever_the_name_is(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    assert rows_of(tmp_path, "in.csv", pack(CONTENT))[0] == ["Größe", "a\nb"]


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_members_one_after_another_are_all_read(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(b"text\none\n") + pack(b"two\nthr") + pack(b"ee\n")
    assert rows_of(tmp_path, "in.csv.gz", packed)[0] == ["one", "two", "three"]


def test_frame_to_be_skipped_before_the_first_row_is_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    assert rows_of(tmp_path, "in.csv", skipped + zstd(CONTENT))[0] == ["Größe", "a\nb"]


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("cut", [-1, -10, 200])
def test_file_that_was_cut_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes], cut: int
) -> None:
    packed = pack(b"text\n" + b"".join(b"row %d\n" % (n * n) for n in range(900)))
    with pytest.raises(InvalidInput, match=r"its (gzip|zstd) data is damaged"):
        rows_of(tmp_path, "in.csv", packed[:cut])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("pack", [*PACKERS.values(), bytes], ids=[*PACKERS, "plain"])
def test_killed_run_of_a_converted_file_resumes(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    rows = [f'{n},"Größe {n}\r\nzwei"' for n in range(2_500)]
    source, out, whole = (tmp_path / name for name in ("in.csv", "out.csv", "whole.csv"))
    source.write_bytes(pack("\r".join(["id,text", *rows]).encode(encoding)))
    named = None if encoding != "cp1252" else encoding
    score(source, whole, encoding=named)
    with pytest.raises(Killed):
        score(source, out, before=killer(4_000), encoding=named)
    score(source, out, encoding=named)
    assert out.read_bytes() == whole.read_bytes()
    assert [row["text"] for row in read_rows(out)] == [f"Größe {n}\r\nzwei" for n in range(2_500)]
