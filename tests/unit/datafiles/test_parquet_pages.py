"""A stranger's Parquet file takes a bounded amount of memory, whatever it says of itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datafiles.chunks import InvalidInput, Position
from datafiles.lines import MAX_LINE_BYTES
from datafiles.parquet_pages import MAX_BATCH_BYTES, MAX_CONTENTS_BYTES, MAX_PAGES_BYTES
from datafiles.parquet_source import ParquetSource

ROWS = 3_000
TABLE = pa.table(
    {
        "text": [f"text {row}" for row in range(ROWS)],
        "a.b": list(range(ROWS)),
        "pair": [{"left": row, "right": None} for row in range(ROWS)],
    }
)


def bounded(path: Path) -> ParquetSource:
    return ParquetSource(path, "text", None, is_bounded=True)


def texts(source: ParquetSource, limit: int | None = None) -> list[str]:
    return [text for chunk in source.chunks(Position(), limit) for text in chunk.texts]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_usual_file_is_read_as_without_bounds(
    compression: str, version: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(
        TABLE, path, compression=compression, data_page_version=version, row_group_size=1_000,
        data_page_size=1_000,
    )  # fmt: skip
    assert (
        texts(bounded(path))
        == texts(ParquetSource(path, "text", None))
        == list(map(str, TABLE["text"]))
    )


@pytest.mark.parametrize("more", [0, 1])
def test_large_table_of_contents_is_refused_before_it_is_read(more: int, tmp_path: Path) -> None:
    path, length = tmp_path / "in.parquet", MAX_CONTENTS_BYTES + more
    path.write_bytes(b"PAR1" + b"x" * length + length.to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InvalidInput) as refused:
        bounded(path)
    says = "its table of contents has 4,194,305 bytes" if more else "not a Parquet file"
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff" * 100])
def test_what_is_no_parquet_file_is_not_said_to_have_contents(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^not a Parquet file"):
        bounded(path)


def test_small_file_with_a_huge_page_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    texts = pa.array(["a" * (MAX_PAGES_BYTES + 1)])
    pq.write_table(
        pa.table({"text": texts}), path, compression="zstd", use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
    assert path.stat().st_size < 20_000
    with pytest.raises(InvalidInput, match="pages have more than 128 MiB"):
        bounded(path)


def test_value_that_each_row_repeats_is_decoded_for_few_rows_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    value = "a" * 1_000_000
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), [value])
    pq.write_table(pa.table({"text": repeated}), path, compression="zstd")
    chunk = next(bounded(path).chunks(Position(), None))
    assert 0 < chunk.end.rows * len(value) <= MAX_BATCH_BYTES


def test_row_that_is_larger_than_a_line_may_be_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    page = ["a page", "\x01" * (MAX_LINE_BYTES + 1), "x" * (MAX_LINE_BYTES // 2)]
    inner = [{"left": "y" * MAX_LINE_BYTES}, None, None]
    for columns, refused in (
        ({"text": ["one", "two", "three"], "page": page}, [2]),
        ({"text": ["one", "two", "three"], "page": page, "inner": inner}, [1, 2]),
        ({"text": ["one", page[1], "three"]}, [2]),
    ):
        pq.write_table(pa.table(columns), path)
        chunks = list(bounded(path).chunks(Position(), None))
        rejected = [one for chunk in chunks for one in chunk.rejected]
        assert [one.line for one in rejected] == refused
        assert all("at most 1,048,576 are allowed" in one.reason for one in rejected)
        assert sum(len(chunk.texts) for chunk in chunks) == 3 - len(refused)
        # The operator's own file may have such rows, but no such text.
        of_operator = ParquetSource(path, "text", None)
        assert len(texts(of_operator)) == (3 if "page" in columns else 2)


def test_huge_value_that_each_row_repeats_ends_the_file_soon(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), ["b" * (90 << 20)])
    table = pa.table({"text": ["a"] * 2_000, "huge": huge})
    pq.write_table(table, path, compression="zstd", use_dictionary=True)
    assert path.stat().st_size < 100_000
    chunks = bounded(path).chunks(Position(), None)
    for _ in range(2):
        chunk = next(chunks)
        assert (len(chunk.rejected), len(chunk.texts), len(chunk.columns)) == (1, 0, 0)
    with pytest.raises(InvalidInput, match=r"up to row 3 .*more than 256 MiB together.*--id"):
        next(chunks)
    assert texts(ParquetSource(path, "text", ["text"], is_bounded=True), 5) == ["a"] * 5


def test_lists_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"], "list": [[1, 2]]}), path)
    with pytest.raises(InvalidInput, match=r"list\.list\.element holds lists.*--id"):
        bounded(path)
    assert texts(ParquetSource(path, "text", ["text"], is_bounded=True)) == ["a"]
    assert texts(ParquetSource(path, "text", None)) == ["a"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Fewer rows in a page than the table of contents says.
@example(changes=[(1605, b"\x01")])
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))))
def test_changed_bytes_are_read_or_refused(
    changes: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(TABLE.slice(0, 20), path, compression="none", store_schema=False)
    content = bytearray(path.read_bytes())
    for place, new in changes:
        at = place % len(content)
        content[at : at + len(new)] = new
    path.write_bytes(content)
    try:
        texts(bounded(path), ROWS)  # a file may say that it has any number of rows
    except InvalidInput as error:
        assert str(error)


def test_file_of_very_many_equal_rows_is_refused_and_one_of_few_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": pa.nulls(20_000_000, pa.string())}), path)
    assert path.stat().st_size < 50_000
    with pytest.raises(InvalidInput, match="it has 20,000,000 rows; of an upload of its size"):
        bounded(path)
    assert len(ParquetSource(path, "text", None).names) == 1
    pq.write_table(pa.table({"text": ["the same"] * 1_000_000}), path)
    assert bounded(path).fraction(Position(rows=500_000)) == 0.5


def test_file_without_rows_has_none(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    with pq.ParquetWriter(path, TABLE.schema) as writer:
        writer.write_table(TABLE.slice(0, 0))
    assert texts(bounded(path)) == []
    pq.write_table(TABLE.slice(0, 0), path)
    assert texts(bounded(path)) == []


def test_file_of_very_many_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    many = pa.table({"text": [f"{row}" for row in range(60_000)]})
    pq.write_table(many, path, data_page_size=1, write_batch_size=1, use_dictionary=False)
    with pytest.raises(InvalidInput, match="it has more than 50,000 pages"):
        bounded(path)
