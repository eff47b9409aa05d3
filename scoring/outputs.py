"""The outputs: CSV, JSON lines and Parquet, as bytes that are appended chunk by chunk.

A Parquet file has its table of contents at its end, so a killed run could not continue it. Its rows
are first appended to a stream of Arrow record batches, which becomes a Parquet file at the end.
"""

from __future__ import annotations

import base64
import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.types import Classification, Version
from datafiles.arrow_types import readable_schema, utc_schema
from datafiles.chunks import Columns

# The size of a row group of Parquet, which is in memory while it is written.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 16 << 20
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
# Of the year 30,000; Arrow's calendar ends with 32,767.
_LAST_SECOND = 884_000_000_000
# Further digits of a confidence are float32 noise.
_DIGITS = 6

Scores = Mapping[Version, Sequence[Classification]]


def result_schema(versions: Sequence[Version]) -> pa.Schema:
    """The columns that an output adds to those of the input."""
    names = [f"{name}_{v}" for v in versions for name in ("sentiment", "confidence")]
    types = [pa.string(), pa.float64()] * len(versions)
    return pa.schema([*zip(names, types, strict=True), ("truncated", pa.bool_())])


class Output(ABC):
    """Formats chunks as bytes to append; `schema` has the columns of the input."""

    def __init__(
        self, schema: pa.Schema, versions: Sequence[Version], text: str, delimiter: str
    ) -> None:
        """`text` is the column of the texts, and `delimiter` that of CSV."""
        self._schema = schema
        self._versions = versions
        self._text = text
        self._delimiter = delimiter
        self._added = result_schema(versions)

    def head(self) -> bytes:
        """The bytes before the first row."""
        return b""

    @abstractmethod
    def rows(self, columns: Columns, scores: Scores) -> bytes: ...

    def _results(self, scores: Scores) -> list[Sequence[object]]:
        """The columns that are added."""
        columns: list[Sequence[object]] = []
        for version in self._versions:
            columns.append([result.sentiment for result in scores[version]])
            columns.append([round(result.confidence, _DIGITS) for result in scores[version]])
        by_row = zip(*(scores[version] for version in self._versions), strict=True)
        columns.append([any(result.truncated for result in results) for results in by_row])
        return columns


class CsvOutput(Output):
    def head(self) -> bytes:
        return self._csv([[*self._schema.names, *self._added.names]])

    def rows(self, columns: Columns, scores: Scores) -> bytes:
        rows: Iterable[Iterable[object]] = columns
        if isinstance(columns, pa.Table):
            readable = _readable(columns, self._text)
            rows = zip(*(column.to_pylist() for column in readable.columns), strict=True)
        results = zip(*self._results(scores), strict=True)
        return self._csv(
            [_csv_value(value) for value in (*row, *added)]
            for row, added in zip(rows, results, strict=True)
        )

    def _csv(self, rows: Iterable[Sequence[object]]) -> bytes:
        lines = _Lines()
        csv.writer(lines, delimiter=self._delimiter).writerows(rows)
        return "".join(lines.rows).encode()


class JsonOutput(Output):
    def rows(self, columns: Columns, scores: Scores) -> bytes:
        results = zip(*self._results(scores), strict=True)
        return b"".join(
            _with_members(row, dict(zip(self._added.names, added, strict=True)))
            for row, added in zip(self._objects(columns), results, strict=True)
        )

    def _objects(self, columns: Columns) -> Iterator[bytes]:
        """The rows as JSON objects, of which those of JSON lines are already."""
        if isinstance(columns, pa.Table):
            for row in _readable(columns, self._text).to_pylist():
                yield orjson.dumps(_json_value(row), default=_as_string)
            return
        for row in columns:
            if isinstance(row, bytes):
                yield row
            else:
                yield orjson.dumps(dict(zip(self._schema.names, row, strict=True)))


class ArrowOutput(Output):
    def head(self) -> bytes:
        return bytes(pa.schema([*self._schema, *self._added]).serialize())

    def rows(self, columns: Columns, scores: Scores) -> bytes:
        table = columns
        if not isinstance(table, pa.Table):
            by_column = [[row[i] for row in table] for i in range(len(self._schema))]
            table = pa.table(by_column, self._schema)
        for field, values in zip(self._added, self._results(scores), strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        return b"".join(bytes(batch.serialize()) for batch in table.combine_chunks().to_batches())


def _with_members(row: bytes, members: Mapping[str, object]) -> bytes:
    """A JSON object with further members, and a line feed."""
    return row.removesuffix(b"}").rstrip() + b"," + orjson.dumps(members)[1:] + b"\n"


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


class _Lines:
    """The file that a CSV writer writes to: each row with a line feed at its end.

    The writer itself ends rows with CR LF, because it quotes only line ends that it writes: before
    Python 3.13 it would leave a lone CR in a field unquoted, which ends a row for many readers.
    """

    def __init__(self) -> None:
        self.rows: list[str] = []

    def write(self, row: str) -> None:
        self.rows.append(row.removesuffix("\r\n") + "\n")


def _csv_value(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(_json_value(value), default=_as_string).decode().strip('"')


def _json_value(value: Any) -> Any:
    """Replace the numbers that JSON does not have by their names; orjson would write null."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, dict):
        return {key: _json_value(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(member) for member in value]
    return value


def _readable(table: pa.Table, text: str) -> pa.Table:
    """Convert times to strings with Arrow, because Python's times have no nanoseconds.

    The column `text` is UTF-8, also where its type is that of bytes.
    """
    if text in table.column_names:
        place = table.column_names.index(text)
        table = table.set_column(place, text, table.column(place).cast(pa.string()))
    out_of_range = _out_of_range(table)
    try:
        readable = table.cast(readable_schema(table.schema))
    except pa.ArrowInvalid:  # a time zone that this machine does not know
        in_utc = table.cast(utc_schema(table.schema))
        readable = in_utc.cast(readable_schema(in_utc.schema))
    for place, (rows, names) in out_of_range.items():
        column = pc.if_else(rows, names, readable.column(place))
        readable = readable.set_column(place, readable.field(place), column)
    return readable


def _out_of_range(table: pa.Table) -> dict[int, tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """The columns with times in a zone that no calendar reaches: which rows, and their values.

    A data base's "infinity" is such a time. Arrow makes a wrong date of it; without a zone it
    writes its value, as here.
    """
    found = {}
    for place, column in enumerate(table.columns):
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            units = _UNITS[column.type.unit]
            numbers = column.cast(pa.int64())
            # The time of the zone, which is at most a day from UTC, has to be one too.
            end = min(_LAST_SECOND * units, (1 << 63) - 1 - _DAY_SECONDS * units)
            rows = pc.or_(pc.greater(numbers, end), pc.less(numbers, -end))
            if pc.any(rows).as_py():
                names = pc.binary_join_element_wise(
                    "<value out of range: ", numbers.cast(pa.string()), ">", ""
                )
                found[place] = rows, names
    return found


def _as_string(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
