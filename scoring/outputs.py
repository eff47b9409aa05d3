"""The outputs: CSV, JSON lines and Parquet, as bytes that are appended chunk by chunk.

A Parquet file has its table of contents at its end, so a killed run could not continue it. Its rows
are first appended to a stream of Arrow record batches, which becomes a Parquet file at the end.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from core.types import Classification, Version
from scoring.chunks import InputColumns

# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 16 << 20
# Further digits of a confidence are float32 noise.
_DIGITS = 6

Scores = Mapping[Version, Sequence[Classification]]


class Output(Protocol):
    """Formats chunks as bytes to append."""

    def head(self, schema: pa.Schema) -> bytes:
        """The bytes before the first row."""
        ...

    def rows(self, columns: InputColumns, scores: Scores) -> bytes: ...


def result_columns(versions: Sequence[Version]) -> list[str]:
    """The names of the columns that the output adds to those of the input."""
    return [
        *(name for v in versions for name in (f"sentiment_{v}", f"confidence_{v}")),
        "truncated",
    ]


class CsvOutput:
    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions

    def head(self, schema: pa.Schema) -> bytes:
        return _csv([[*schema.names, *result_columns(self._versions)]])

    def rows(self, columns: InputColumns, scores: Scores) -> bytes:
        results = zip(*_results(self._versions, scores), strict=True)
        return _csv(
            [*row, *map(_csv_value, result)]
            for row, result in zip(columns.as_strings(), results, strict=True)
        )


class JsonOutput:
    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = versions

    def head(self, schema: pa.Schema) -> bytes:  # noqa: ARG002  the protocol has it
        return b""

    def rows(self, columns: InputColumns, scores: Scores) -> bytes:
        names = result_columns(self._versions)
        results = zip(*_results(self._versions, scores), strict=True)
        lines: list[bytes] = []
        for row, result in zip(columns.as_json(), results, strict=True):
            added = orjson.dumps(dict(zip(names, result, strict=True)))
            lines.append(row.removesuffix(b"}").rstrip() + b"," + added[1:] + b"\n")
        return b"".join(lines)


class ArrowOutput:
    def __init__(self, versions: Sequence[Version]) -> None:
        types = [pa.string(), pa.float64()] * len(versions) + [pa.bool_()]
        names = result_columns(versions)
        self._versions = versions
        self._added = [pa.field(name, type_) for name, type_ in zip(names, types, strict=True)]

    def head(self, schema: pa.Schema) -> bytes:
        return bytes(pa.schema([*schema, *self._added]).serialize())

    def rows(self, columns: InputColumns, scores: Scores) -> bytes:
        table = columns.as_table()
        for field, values in zip(self._added, _results(self._versions, scores), strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        return b"".join(bytes(batch.serialize()) for batch in table.combine_chunks().to_batches())


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


def _results(versions: Sequence[Version], scores: Scores) -> list[Sequence[object]]:
    """The added columns, in the order of their names."""
    columns: list[Sequence[object]] = []
    for version in versions:
        columns.append([result.sentiment for result in scores[version]])
        columns.append([round(result.confidence, _DIGITS) for result in scores[version]])
    by_row = zip(*(scores[version] for version in versions), strict=True)
    columns.append([any(result.truncated for result in results) for results in by_row])
    return columns


def _csv(rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _csv_value(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
