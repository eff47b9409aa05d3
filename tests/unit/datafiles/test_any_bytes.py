"""Any bytes are read, row by row, or refused as invalid input; nothing else is raised."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datafiles.chunks import InvalidInput, Position
from datafiles.formats import Format, Input, open_source

BEGINNINGS = [
    b"",
    b"text\n",
    b'{"text":"a"}\n',
    b"text;b\r",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
]
BYTES = st.builds(bytes.__add__, st.sampled_from(BEGINNINGS), st.binary(max_size=200))


@pytest.mark.parametrize("format_", list(Format))
@settings(max_examples=60, deadline=None)
@given(
    content=BYTES,
    encoding=st.sampled_from([None, "utf-8", "cp1252", "utf-16", "utf-7", "shift_jis", "utf-32"]),
    packs=st.booleans(),
    start=st.integers(0, 20),
)
def test_any_bytes_are_read_or_refused(
    format_: Format, content: bytes, encoding: str | None, packs: bool, start: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in"
        path.write_bytes(gzip.compress(content) if packs else content)
        try:
            source = open_source(Input(path, format_, encoding), "text", None)
            for position in (Position(), Position(start)):
                for chunk in source.chunks(position, None):
                    assert len(chunk.texts) == len(chunk.lines) == len(chunk.columns)
                    assert 0 <= source.fraction(chunk.end) <= 1
        except InvalidInput as error:
            assert str(error)


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=20)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@settings(max_examples=40, deadline=None)
@given(texts=TEXTS)
def test_written_texts_are_read_back_from_every_format(encoding: str, texts: Sequence[str]) -> None:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    cells = "".join('"' + text.replace('"', '""') + '"\n' for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in"
        for format_, content in ((Format.jsonl, lines), (Format.csv, f"text\n{cells}")):
            path.write_bytes(content.encode(encoding))
            assert _texts(Input(path, format_)) == texts
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)
        assert _texts(Input(path, Format.parquet)) == texts


def _texts(source: Input) -> list[str]:
    chunks = open_source(source, "text", None, check=str).chunks(Position(), None)
    return [text for chunk in chunks for text in chunk.texts]
