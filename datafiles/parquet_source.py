"""The source of Parquet files, read page by page: a row group of any size takes little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datafiles.chunks import (
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
    """A Parquet file; the output columns have the types of the input columns."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] | None) -> None:
        self._path = path
        self._column = column
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
                groups = map(metadata.row_group, range(metadata.num_row_groups))
                self._groups = [group.num_rows for group in groups]
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidInput(f"not a Parquet file: {error}") from error
        names = schema.names if keep is None else list(keep)
        for name in (column, *names):
            if schema.names.count(name) != 1:
                known = ", ".join(schema.names)
                raise InvalidInput(f"no column {name}, or several; the columns are: {known}")
        self._read_columns = list(dict.fromkeys((*names, column)))
        self.schema = pa.schema([_without_dictionary(schema.field(name)) for name in names])

    def fraction(self, position: Position) -> float:
        rows = sum(self._groups)
        return position.rows / rows if rows else 1.0

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        end = sum(self._groups) if limit is None else min(limit, sum(self._groups))
        row = start.rows
        tables = self._tables(start.rows)
        pending = pa.table([])
        while row < end:
            size = min(CHUNK_ROWS, end - row)
            while pending.num_rows < size:
                table = next(tables)
                pending = pa.concat_tables([pending, table]) if pending.num_rows else table
            yield self._chunk(pending.slice(0, size), row)
            pending = pending.slice(size)
            row += size

    def _tables(self, start: int) -> Iterator[pa.Table]:
        """Read the rows from `start` on, in tables of at most a chunk."""
        group = 0
        while group < len(self._groups) and start >= self._groups[group]:
            start -= self._groups[group]
            group += 1
        with pq.ParquetFile(self._path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            groups = list(range(group, len(self._groups)))
            for batch in file.iter_batches(
                CHUNK_ROWS, row_groups=groups, columns=self._read_columns, use_threads=False
            ):
                if start < batch.num_rows:
                    yield pa.Table.from_batches([batch.slice(start)])
                start = max(0, start - batch.num_rows)

    def _chunk(self, table: pa.Table, before: int) -> Chunk:
        texts: list[str] = []
        usable: list[int] = []
        rejected: list[Rejection] = []
        for index, value in enumerate(table.column(self._column).to_pylist()):
            try:
                texts.append(checked_text(value))
                usable.append(index)
            except UnusableRow as error:
                raw = "" if value is None else str(value)[:RAW_CHARACTERS]
                rejected.append(Rejection(before + index + 1, str(error), raw))
        columns = table.select(self.schema.names)
        if rejected:
            columns = columns.take(pa.array(usable, pa.int64()))
        end = Position(rows=before + table.num_rows)
        return Chunk(texts, columns.cast(self.schema), rejected, end)


def _without_dictionary(field: pa.Field) -> pa.Field:
    """The field without dictionary encoding, which cannot be written chunk by chunk."""
    if pa.types.is_dictionary(field.type):
        return field.with_type(field.type.value_type)
    return field
