"""Parquet, read page by page: a row group of any size costs the same memory."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scoring.chunks import (
    CHUNK_ROWS,
    RAW_CHARACTERS,
    Chunk,
    InvalidInput,
    Position,
    Rejection,
    UnusableRow,
    checked_text,
)

_READ_BYTES = 1 << 20


class ParquetSource:
    """The rows of a Parquet file; a column of the output has the type that it has here."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] | None) -> None:
        self._path = path
        self._column = column
        try:
            with pq.ParquetFile(path) as file:
                there = file.schema_arrow
                self._groups = [
                    file.metadata.row_group(number).num_rows
                    for number in range(file.metadata.num_row_groups)
                ]
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidInput(f"no Parquet file: {error}") from error
        wanted = there.names if keep is None else list(keep)
        for name in (column, *wanted):
            if there.names.count(name) != 1:
                known = ", ".join(there.names)
                raise InvalidInput(f"no column {name!r}, or several; there are: {known}")
        self._columns = list(dict.fromkeys((*wanted, column)))
        self.schema = pa.schema([_plain(there.field(name)) for name in wanted])

    def fraction(self, position: Position) -> float:
        rows = sum(self._groups)
        return position.rows / rows if rows else 1.0

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        end = sum(self._groups) if limit is None else min(limit, sum(self._groups))
        row = start.rows
        tables = self._tables(start.rows)
        waiting = pa.table([])
        while row < end:
            wanted = min(CHUNK_ROWS, end - row)
            while waiting.num_rows < wanted:
                more = next(tables)
                waiting = pa.concat_tables([waiting, more]) if waiting.num_rows else more
            yield self._chunk(waiting.slice(0, wanted), row)
            waiting = waiting.slice(wanted)
            row += wanted

    def _tables(self, start: int) -> Iterator[pa.Table]:
        """What follows row `start`, in pieces of up to a chunk."""
        group = 0
        while group < len(self._groups) and start >= self._groups[group]:
            start -= self._groups[group]
            group += 1
        with pq.ParquetFile(self._path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(
                CHUNK_ROWS,
                row_groups=list(range(group, len(self._groups))),
                columns=self._columns,
                use_threads=False,
            ):
                if start < batch.num_rows:
                    yield pa.Table.from_batches([batch.slice(start)])
                start = max(0, start - batch.num_rows)

    def _chunk(self, table: pa.Table, before: int) -> Chunk:
        texts: list[str] = []
        good: list[int] = []
        rejected: list[Rejection] = []
        for index, value in enumerate(table.column(self._column).to_pylist()):
            try:
                texts.append(checked_text(value))
                good.append(index)
            except UnusableRow as error:
                raw = "" if value is None else str(value)[:RAW_CHARACTERS]
                rejected.append(Rejection(before + index + 1, str(error), raw))
        kept = table.select(self.schema.names)
        if rejected:
            kept = kept.take(pa.array(good, pa.int64()))
        end = Position(rows=before + table.num_rows)
        return Chunk(texts, _Columns(kept.cast(self.schema)), rejected, end)


def _plain(field: pa.Field) -> pa.Field:
    """Without a dictionary, which cannot be written bit by bit."""
    if pa.types.is_dictionary(field.type):
        return field.with_type(field.type.value_type)
    return field


class _Columns:
    """Rows of a Parquet file; for JSON lines and CSV, values of other kinds as strings."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def as_json(self) -> Sequence[bytes]:
        rows = self._readable().to_pylist()
        return [orjson.dumps(row, default=_readable) for row in rows]

    def as_strings(self) -> Sequence[Sequence[str]]:
        rows = self._readable().to_pylist()
        return [[_string(value) for value in row.values()] for row in rows]

    def as_table(self) -> pa.Table:
        return self._table

    def _readable(self) -> pa.Table:
        table = self._table
        for index, field in enumerate(table.schema):
            # Python's times have no nanoseconds.
            if pa.types.is_temporal(field.type) and not pa.types.is_duration(field.type):
                column = pc.cast(table.column(index), pa.string())
                table = table.set_column(index, field.name, column)
        return table


def _readable(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _string(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value, default=_readable).decode().strip('"')
