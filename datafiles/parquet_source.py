"""The source of Parquet files, read page by page: a row group of any size takes little memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datafiles.arrow_types import plain_schema
from datafiles.chunks import (
    CHUNK_ROWS,
    CHUNK_TEXT_BYTES,
    RAW_CHARACTERS,
    CheckText,
    Chunk,
    InvalidInput,
    Position,
    Rejection,
    UnusableRow,
    checked_text,
)
from datafiles.columns import find_column, find_columns, require_distinct, require_few, shown
from datafiles.lines import MAX_LINE_BYTES
from datafiles.parquet_pages import check_contents, rows_at_once
from datafiles.parquet_pilot import Flight, piloted
from datafiles.watched import Watch, not_watched

_READ_BYTES = 1 << 20
# Of an upload, in all rows that are too large themselves: a file of kilobytes can repeat a value of
# megabytes, and to decode it takes time each time.
MAX_REFUSED_BYTES = 256 << 20
# A hundred bytes can say that two billion rows are null, and each is rejected with a reason.
MAX_EMPTY_ROWS = 1 << 20
EMPTY_ROWS_OF_A_BYTE = 100
# Spark writes its times in this form. In nanoseconds, as Arrow reads them otherwise, 9999-12-31 is
# a day of 1816.
_INT96_UNIT = "us"


class ParquetSource:
    """A Parquet file; `schema` has the columns that it repeats, with their types."""

    description = "Parquet"

    def __init__(
        self,
        path: Path,
        column: str,
        keep: Sequence[str] | None,
        check: CheckText = checked_text,
        *,
        is_bounded: bool = False,
        is_piloted: bool = False,
        watch: Watch = not_watched,
    ) -> None:
        """With `is_piloted` nothing is read here that another process has not read before."""
        self._flight = Flight(column, keep, is_bounded) if is_piloted else None
        if self._flight is not None:
            with piloted(path, self._flight, watch):
                pass
        self._path = path
        self._watch = watch
        self._check = check
        try:
            if is_bounded:
                check_contents(path)
            with pq.ParquetFile(path, coerce_int96_timestamp_unit=_INT96_UNIT) as file:
                schema, metadata = file.schema_arrow, file.metadata
                names = schema.names
                groups = map(metadata.row_group, range(metadata.num_row_groups))
                self._groups = [group.num_rows for group in groups]
        except pa.ArrowNotImplementedError as error:
            raise InvalidInput(f"it has values that cannot be read: {_line(error)}") from error
        except UnicodeDecodeError as error:
            raise InvalidInput("the name of a column is not in UTF-8") from error
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput(f"not a Parquet file: {_line(error)}") from error
        if is_bounded:
            _check_rows(sum(self._groups), path.stat().st_size)
        require_few(names)
        self.column = names[find_column(column, names)]
        if keep is None:
            require_distinct(names)
            self.names: Sequence[str] = names
        else:
            self.names = [names[index] for index in find_columns(keep, names)]
        self._read_columns = list(dict.fromkeys((*self.names, self.column)))
        self._rows_at_once = CHUNK_ROWS
        self._is_bounded = is_bounded
        self._refused_bytes = 0
        if is_bounded:
            self._rows_at_once = rows_at_once(path, metadata, self._read_columns, CHUNK_ROWS)
        try:
            self._plain = plain_schema(pa.schema([schema.field(n) for n in self._read_columns]))
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        self.schema = pa.schema([self._plain.field(name) for name in self.names])
        type_ = self._plain.field(self.column).type
        if not _can_hold_text(type_):
            raise InvalidInput(
                f"the column {shown(self.column)} holds {type_}, no texts", "--column"
            )

    def fraction(self, position: Position) -> float:
        rows = sum(self._groups)
        return position.rows / rows if rows else 1.0

    def chunks(
        self, start: Position, limit: int | None, text_bytes: int = CHUNK_TEXT_BYTES
    ) -> Generator[Chunk, None, None]:
        chunks = self._chunks(start, limit, text_bytes)
        if self._flight is None:
            yield from chunks
            return
        flight = replace(self._flight, rows_before=start.rows, limit=limit, text_bytes=text_bytes)
        row = start.rows
        with piloted(self._path, flight, self._watch) as pilot:
            while True:
                pilot.advance(f"what comes after row {row:,}")
                chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk
                row = chunk.end.rows

    def _chunks(
        self, start: Position, limit: int | None, text_bytes: int
    ) -> Generator[Chunk, None, None]:
        end = sum(self._groups) if limit is None else min(limit, sum(self._groups))
        row = start.rows
        tables = self._tables(start.rows)
        pending = pa.table([])
        while row < end:
            size = min(self._rows_at_once, end - row)
            while pending.num_rows < size:
                try:
                    table = next(tables).select(self._read_columns)
                except StopIteration:
                    message = f"the rows after row {row + pending.num_rows:,} are not in the file"
                    raise InvalidInput(message) from None
                except (pa.ArrowException, OSError) as error:
                    message = f"the rows after row {row + pending.num_rows:,} cannot be read"
                    raise InvalidInput(f"{message}: {_line(error)}") from error
                pending = pa.concat_tables([pending, table]) if pending.num_rows else table
            try:
                table = pending.slice(0, size).cast(self._plain)
            except pa.ArrowException as error:  # such as a list_view
                message = f"the rows after row {row:,} have values that cannot be read"
                raise InvalidInput(f"{message}: {_line(error)}") from error
            size = self._rows_of_a_chunk(table, text_bytes)
            yield self._chunk(table.slice(0, size), row)
            pending = pending.slice(size)
            row += size

    def _rows_of_a_chunk(self, table: pa.Table, text_bytes: int) -> int:
        """How many of the rows have the texts of a chunk together, one at least."""
        lengths = pc.binary_length(table.column(self.column).cast(pa.binary()))
        total = pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int64()))
        rows: int = min(table.num_rows, pc.sum(pc.less_equal(total, text_bytes)).as_py() + 1)
        return rows

    def _tables(self, start: int) -> Iterator[pa.Table]:
        """Read the rows from `start` on, in tables of at most a chunk."""
        group = 0
        while group < len(self._groups) and start >= self._groups[group]:
            start -= self._groups[group]
            group += 1
        with pq.ParquetFile(
            self._path,
            buffer_size=_READ_BYTES,
            pre_buffer=False,
            coerce_int96_timestamp_unit=_INT96_UNIT,
        ) as file:
            groups = list(range(group, len(self._groups)))
            for batch in file.iter_batches(
                self._rows_at_once, row_groups=groups, columns=self._read_columns, use_threads=False
            ):
                self._watch()
                if start < batch.num_rows:
                    yield pa.Table.from_batches([batch.slice(start)])
                start = max(0, start - batch.num_rows)

    def _chunk(self, table: pa.Table, before: int) -> Chunk:
        texts: list[str] = []
        usable: list[int] = []
        rejected: list[Rejection] = []
        faults = self._too_large(table, before) | _faults(table)
        # As bytes, because one text that is not UTF-8 would end the conversion of all.
        for index, value in enumerate(table.column(self.column).cast(pa.binary()).to_pylist()):
            try:
                texts.append(self._text(value, faults.get(index)))
                usable.append(index)
            except UnusableRow as error:
                beginning = (value or b"")[: 4 * RAW_CHARACTERS]
                raw = beginning.decode("utf-8", "replace")[:RAW_CHARACTERS]
                rejected.append(Rejection(before + index + 1, str(error), raw))
        columns = table.select(self.names)
        if rejected:
            columns = columns.take(pa.array(usable, pa.int64()))
        end = Position(rows=before + table.num_rows)
        return Chunk(texts, [before + row + 1 for row in usable], columns, rejected, end)

    def _too_large(self, table: pa.Table, before: int) -> dict[int, str]:
        """The rows of an upload that are larger than a line of a text file may be, and why."""
        if not self._is_bounded or table.nbytes <= MAX_LINE_BYTES:
            return {}
        sizes = ((row, table.slice(row, 1).nbytes) for row in range(table.num_rows))
        large = {row: size for row, size in sizes if size > MAX_LINE_BYTES}
        self._refused_bytes += sum(large.values())
        if self._refused_bytes > MAX_REFUSED_BYTES:
            raise InvalidInput(
                f"up to row {before + max(large) + 1:,} its rows of more than {MAX_LINE_BYTES:,} "
                f"bytes have more than {MAX_REFUSED_BYTES >> 20} MiB together; choose columns by "
                "--id",
                "--id",
            )
        return {
            row: f"the row has {size:,} bytes; at most {MAX_LINE_BYTES:,} are allowed"
            for row, size in large.items()
        }

    def _text(self, value: bytes | None, fault: str | None) -> str:
        if fault is not None:
            raise UnusableRow(fault)
        try:
            return self._check(None if value is None else value.decode())
        except UnicodeDecodeError:
            raise UnusableRow(f"column {shown(self.column)}: not in UTF-8") from None


def _check_rows(rows: int, size_bytes: int) -> None:
    """Raises InvalidInput: there are more than a file of this size can tell apart."""
    most = MAX_EMPTY_ROWS + EMPTY_ROWS_OF_A_BYTE * size_bytes
    if rows > most:
        raise InvalidInput(f"it has {rows:,} rows; of an upload of its size {most:,} are read")


def _can_hold_text(type_: pa.DataType) -> bool:
    types = pa.types
    return any(
        is_type(type_)
        for is_type in (
            types.is_string, types.is_large_string, types.is_binary, types.is_large_binary,
            types.is_fixed_size_binary, types.is_null,
        )
    )  # fmt: skip


def _faults(table: pa.Table) -> dict[int, str]:
    """The rows with values that are not valid, as strings that are not UTF-8, and the reasons."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        rows = ((row, table.take(pa.array([row]))) for row in range(table.num_rows))
        return {row: fault for row, values in rows if (fault := _fault(values))}
    return {}


def _fault(row: pa.Table) -> str | None:
    for name, column in zip(row.column_names, row.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            return (
                f"column {shown(name)}: {'not in UTF-8' if 'UTF8' in str(error) else _line(error)}"
            )
    return None


def _line(error: Exception) -> str:
    """Arrow's message, which may have several lines."""
    return " ".join(str(error).split())
