"""A chunk is scored in a minute at most: it has few rows where texts are long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datafiles.chunks import CHUNK_ROWS, CHUNK_TEXT_BYTES, CHUNK_WINDOWS_BYTES, Position
from datafiles.formats import Format, Input, open_source
from tests.unit.scoring.score_rows import write_rows


def chunk_texts(
    path: Path, texts: Sequence[str], text_bytes: int = CHUNK_TEXT_BYTES
) -> list[list[str]]:
    write_rows(path, list(texts))
    source = open_source(Input(path, Format(path.suffix[1:])), "text", None, ())
    return [list(chunk.texts) for chunk in source.chunks(Position(), None, text_bytes)]


@pytest.mark.parametrize("most", [CHUNK_TEXT_BYTES, CHUNK_WINDOWS_BYTES])
@pytest.mark.parametrize("format_", Format)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.sampled_from([1, 40, 2_000, 5_000]), min_size=1, max_size=60))
def test_texts_of_a_chunk_have_so_many_bytes_together(
    format_: Format, most: int, lengths: list[int], tmp_path: Path
) -> None:
    texts = ["é" * length for length in lengths] * 5
    chunks = chunk_texts(tmp_path / f"in.{format_}", texts, most)
    assert [text for chunk in chunks for text in chunk] == texts
    for number, chunk in enumerate(chunks):
        sizes = [len(text.encode()) for text in chunk]
        assert sum(sizes[:-1]) <= most
        assert number == len(chunks) - 1 or sum(sizes) > most


@pytest.mark.parametrize("format_", Format)
def test_usual_texts_come_in_chunks_of_the_usual_number(format_: Format, tmp_path: Path) -> None:
    chunks = chunk_texts(tmp_path / f"in.{format_}", ["a text of some length " * 10] * 3_000)
    assert [len(chunk) for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 3_000 - 2 * CHUNK_ROWS]
