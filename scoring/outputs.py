"""The outputs: CSV, JSON lines and Parquet, as bytes that are appended chunk by chunk.

A Parquet file has its table of contents at its end, so a killed run could not continue it. Its rows
are first appended to a stream of Arrow record batches, which becomes a Parquet file at the end.
"""

from __future__ import annotations

import base64
import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.types import Classification, Version
from datafiles.chunks import Columns

# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 16 << 20
# Further digits of a confidence are float32 noise.
_DIGITS = 6

Scores = Mapping[Version, Sequence[Classification]]


class Output(ABC):
    """Formats chunks as bytes to append."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions
        names = [f"{name}_{v}" for v in versions for name in ("sentiment", "confidence")]
        types = [pa.string(), pa.float64()] * len(versions)
        # The columns that the output adds to those of the input.
        self.added = pa.schema([*zip(names, types, strict=True), ("truncated", pa.bool_())])

    def head(self, schema: pa.Schema) -> bytes:  # noqa: ARG002  for JSON lines
        """The bytes before the first row; `schema` has the columns of the input."""
        return b""

    @abstractmethod
    def rows(self, columns: Columns, scores: Scores) -> bytes: ...

    def _results(self, scores: Scores) -> pa.Table:
        columns: list[Sequence[object]] = []
        for version in self._versions:
            columns.append([result.sentiment for result in scores[version]])
            columns.append([round(result.confidence, _DIGITS) for result in scores[version]])
        by_row = zip(*(scores[version] for version in self._versions), strict=True)
        columns.append([any(result.truncated for result in results) for results in by_row])
        return pa.table(columns, self.added)

    def _joined(self, columns: pa.Table, scores: Scores) -> pa.Table:
        for field, values in zip(self.added, self._results(scores).columns, strict=True):
            columns = columns.append_column(field, values)
        return columns


class CsvOutput(Output):
    def head(self, schema: pa.Schema) -> bytes:
        return _csv([[*schema.names, *self.added.names]])

    def rows(self, columns: Columns, scores: Scores) -> bytes:
        table = _readable(self._joined(columns, scores))
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return _csv([_csv_value(value) for value in row] for row in rows)


class JsonOutput(Output):
    def rows(self, columns: Columns, scores: Scores) -> bytes:
        rows = _json_rows(columns) if isinstance(columns, pa.Table) else columns
        return b"".join(
            row.removesuffix(b"}").rstrip() + b"," + added[1:] + b"\n"
            for row, added in zip(rows, _json_rows(self._results(scores)), strict=True)
        )


class ArrowOutput(Output):
    def head(self, schema: pa.Schema) -> bytes:
        return bytes(pa.schema([*schema, *self.added]).serialize())

    def rows(self, columns: Columns, scores: Scores) -> bytes:
        table = self._joined(columns, scores).combine_chunks()
        return b"".join(bytes(batch.serialize()) for batch in table.to_batches())


def write_parquet(stream: Path, target: Path) -> None:
    """Convert a stream that `ArrowOutput` wrote to Parquet, row group by row group."""
    with (
        pa.OSFile(str(stream)) as file,
        pa.ipc.open_stream(file) as batches,
        pq.ParquetWriter(target, batches.schema, compression="zstd") as writer,
    ):
        for table in _groups(batches):
            writer.write_table(table)


def _groups(batches: pa.RecordBatchStreamReader) -> Iterator[pa.Table]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        is_full = sum(batch.num_rows for batch in group) >= _GROUP_ROWS
        if is_full or sum(batch.nbytes for batch in group) >= _GROUP_BYTES:
            yield pa.Table.from_batches(group)
            group = []
    if group:
        yield pa.Table.from_batches(group)


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _csv_value(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value, default=_as_string).decode().strip('"')


def _json_rows(table: pa.Table) -> list[bytes]:
    return [orjson.dumps(row, default=_as_string) for row in _readable(table).to_pylist()]


def _readable(table: pa.Table) -> pa.Table:
    """Convert times to strings with Arrow, because Python's times have no nanoseconds."""
    for index, field in enumerate(table.schema):
        if pa.types.is_temporal(field.type) and not pa.types.is_duration(field.type):
            column = pc.cast(table.column(index), pa.string())
            table = table.set_column(index, field.name, column)
    return table


def _as_string(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
