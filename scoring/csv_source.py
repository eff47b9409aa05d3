"""The source of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa

from scoring.chunks import Chunk, InputColumns, InvalidInput, Position, UnusableRow, checked_text
from scoring.lines import Lines
from scoring.records import RecordSource, strings_schema


class CsvSource(RecordSource[list[str]]):
    """A CSV file with a header, in UTF-8; quoted fields may contain line ends."""

    def __init__(self, path: Path, column: str, keep: Sequence[str] | None) -> None:
        super().__init__(path)
        self._header: list[str] = []
        with path.open("rb") as file:
            lines = Lines(file, Position())
            try:
                header = next(_CsvReader(lines), None)
            except UnusableRow as error:
                raise InvalidInput(f"the header cannot be read: {error}") from error
            self._data = Position(lines.offset, lines.number)
        if not header:
            raise InvalidInput("a CSV file must begin with the names of its columns")
        self._header = header
        if len(set(header)) != len(header):
            raise InvalidInput(f"two columns have the same name: {', '.join(header)}")
        names = header if keep is None else list(keep)
        for name in (column, *names):
            if name not in header:
                raise InvalidInput(f"no column {name}; the columns are: {', '.join(header)}")
        self._column = header.index(column)
        self._indexes = [header.index(name) for name in names]
        self.schema = strings_schema(names)

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        return super().chunks(max(start, self._data, key=lambda position: position.offset), limit)

    def _reader(self, lines: Lines) -> Iterator[list[str] | None]:
        return _CsvReader(lines)

    def _text(self, values: list[str]) -> str:
        if len(values) != len(self._header):
            raise UnusableRow(f"{len(values)} fields; the header has {len(self._header)}")
        return checked_text(values[self._column])

    def _columns(self, rows: Sequence[list[str]]) -> InputColumns:
        return _CsvColumns(self.schema, [[row[index] for index in self._indexes] for row in rows])


class _CsvReader:
    """csv.reader on lines of limited length, which continues after a line that it cannot read."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._undecodable = False
        # Strict, so that a quote that is never closed is an error.
        self._rows = csv.reader(iter(self._next_line, ""), strict=True)

    def __iter__(self) -> Iterator[list[str] | None]:
        return self

    def __next__(self) -> list[str] | None:
        self._undecodable = False
        try:
            row = next(self._rows)
        except csv.Error as error:
            raise UnusableRow(f"invalid CSV: {error}") from None
        if self._undecodable:
            raise UnusableRow("not in UTF-8")
        return row or None

    def _next_line(self) -> str:
        line = self._lines.next_line()
        try:
            return line.decode()
        except UnicodeDecodeError:
            self._undecodable = True
            return line.decode("utf-8", "replace")


class _CsvColumns:
    """The columns of rows of CSV; every value is a string."""

    def __init__(self, schema: pa.Schema, rows: list[list[str]]) -> None:
        self._schema = schema
        self._rows = rows

    def as_json(self) -> Sequence[bytes]:
        names = self._schema.names
        return [orjson.dumps(dict(zip(names, row, strict=True))) for row in self._rows]

    def as_strings(self) -> Sequence[Sequence[str]]:
        return self._rows

    def as_table(self) -> pa.Table:
        columns = zip(*self._rows, strict=True) if self._rows else [[] for _ in self._schema]
        return pa.table([pa.array(list(column), pa.string()) for column in columns], self._schema)
