"""CSV and JSON lines, read record by record."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import orjson
import pyarrow as pa

from scoring.chunks import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Carried,
    Chunk,
    InvalidInput,
    Position,
    Rejection,
    UnusableRow,
    checked_text,
)
from scoring.lines import Lines

Values = TypeVar("Values")


class _Record(NamedTuple, Generic[Values]):
    values: Values
    text: str


class _RecordSource(Generic[Values]):
    """Cuts records into chunks; what a record is, and what is wrong with it, subclasses know."""

    schema: pa.Schema

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = path.stat().st_size

    def fraction(self, position: Position) -> float:
        return position.offset / self._bytes if self._bytes else 1.0

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        with self._path.open("rb") as file:
            lines = Lines(file, start)
            records = self._records(lines)
            rows, begun_at = start.rows, start.offset
            good: list[_Record[Values]] = []
            rejected: list[Rejection] = []

            def chunk() -> Chunk:
                return Chunk(
                    [record.text for record in good],
                    self._carry([record.values for record in good]),
                    list(rejected),
                    Position(lines.offset, lines.number, rows),
                )

            while (limit is None or rows < limit) and (record := next(records, None)) is not None:
                rows += 1
                if isinstance(record, Rejection):
                    rejected.append(record)
                else:
                    good.append(record)
                if len(good) + len(rejected) == CHUNK_ROWS or lines.offset - begun_at > CHUNK_BYTES:
                    yield chunk()
                    good.clear()
                    rejected.clear()
                    begun_at = lines.offset
            if good or rejected:
                yield chunk()

    def _records(self, lines: Lines) -> Iterator[_Record[Values] | Rejection]:
        read = self._reader(lines)
        while True:
            lines.begin_record()
            try:
                values = next(read)
                if values is None:
                    continue
                yield _Record(values, self._text(values))
            except StopIteration:
                return
            except UnusableRow as error:
                yield Rejection(lines.first, str(error), lines.raw)

    @abstractmethod
    def _reader(self, lines: Lines) -> Iterator[Values | None]:
        """Reads a record with each step, or nothing from a blank line; may be asked again after
        it raised UnusableRow."""

    @abstractmethod
    def _text(self, values: Values) -> str: ...

    @abstractmethod
    def _carry(self, rows: Sequence[Values]) -> Carried: ...


class CsvSource(_RecordSource[list[str]]):
    """CSV with a header, in UTF-8; quoted fields may hold line ends."""

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
            raise InvalidInput("a CSV file begins with the names of its columns")
        self._header = header
        if len(set(header)) != len(header):
            raise InvalidInput(f"two columns have one name: {', '.join(header)}")
        wanted = header if keep is None else list(keep)
        for name in (column, *wanted):
            if name not in header:
                raise InvalidInput(f"no column {name!r}; there are: {', '.join(header)}")
        self._column = header.index(column)
        self._kept = [header.index(name) for name in wanted]
        self.schema = _strings_schema(wanted)

    def chunks(self, start: Position, limit: int | None) -> Iterator[Chunk]:
        return super().chunks(max(start, self._data, key=lambda each: each.offset), limit)

    def _reader(self, lines: Lines) -> Iterator[list[str] | None]:
        return _CsvReader(lines)

    def _text(self, values: list[str]) -> str:
        if len(values) != len(self._header):
            raise UnusableRow(f"{len(values)} fields; the header has {len(self._header)}")
        return checked_text(values[self._column])

    def _carry(self, rows: Sequence[list[str]]) -> Carried:
        return _Strings(self.schema, [[row[index] for index in self._kept] for row in rows])


class _CsvReader:
    """csv.reader on bounded lines, which goes on behind what it cannot read."""

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
            raise UnusableRow(f"no valid CSV: {error}") from None
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


class JsonSource(_RecordSource[tuple[bytes, dict[str, object]]]):
    """JSON lines: an object a line, in UTF-8.

    With `keep`, or where `fixed`, every row has the same columns: those, or those of the first
    object of the file.
    """

    def __init__(
        self,
        path: Path,
        column: str,
        keep: Sequence[str] | None,
        added: Sequence[str],
        *,
        fixed: bool,
    ) -> None:
        super().__init__(path)
        self._column = column
        self._keep = keep
        self._added = frozenset(added)
        self._fixed: list[str] | None = None
        if keep is None and fixed:
            self._fixed = self._first_keys()
        self.schema = _strings_schema(list(keep or self._fixed or ()))

    def _first_keys(self) -> list[str]:
        with self._path.open("rb") as file:
            for record in self._records(Lines(file, Position())):
                if isinstance(record, _Record):
                    return list(record.values[1])
        return []

    def _reader(self, lines: Lines) -> Iterator[tuple[bytes, dict[str, object]] | None]:
        return _JsonReader(lines)

    def _text(self, values: tuple[bytes, dict[str, object]]) -> str:
        _, members = values
        for name in (self._column, *(self._keep or ())):
            if name not in members:
                raise UnusableRow(f"no {name!r}")
        if self._keep is None:
            if known := self._added.intersection(members):
                raise UnusableRow(f"has {', '.join(sorted(known))} already")
            if self._fixed is not None and (more := members.keys() - set(self._fixed)):
                raise UnusableRow(f"has {', '.join(sorted(more))}, which the first row has not")
        return checked_text(members[self._column])

    def _carry(self, rows: Sequence[tuple[bytes, dict[str, object]]]) -> Carried:
        if self._keep is None and self._fixed is None:
            # As they are: no number is rounded, nothing is put in another order.
            return _Objects([line for line, _ in rows])
        return _Members(self.schema, [members for _, members in rows])


class _JsonReader:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[tuple[bytes, dict[str, object]] | None]:
        return self

    def __next__(self) -> tuple[bytes, dict[str, object]] | None:
        line = self._lines.next_line()
        if not line:
            raise StopIteration
        line = line.strip()
        if not line:
            return None
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UnusableRow(f"no valid JSON: {error}") from None
        if not isinstance(members, dict):
            raise UnusableRow("no JSON object")
        return line, members


class _Strings:
    """Rows of CSV."""

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
        return pa.table([pa.array(list(each), pa.string()) for each in columns], self._schema)


class _Objects:
    """JSON objects, for an output of the same kind."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def as_json(self) -> Sequence[bytes]:
        return self._lines

    def as_strings(self) -> Sequence[Sequence[str]]:
        raise NotImplementedError

    def as_table(self) -> pa.Table:
        raise NotImplementedError


class _Members:
    """The same members of JSON objects; for CSV and Parquet every value as a string."""

    def __init__(self, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
        self._schema = schema
        self._rows = rows

    def as_json(self) -> Sequence[bytes]:
        return [
            orjson.dumps({name: row[name] for name in self._schema.names}) for row in self._rows
        ]

    def as_strings(self) -> Sequence[Sequence[str]]:
        return [[_string(row.get(name)) or "" for name in self._schema.names] for row in self._rows]

    def as_table(self) -> pa.Table:
        columns = [
            pa.array([_string(row.get(name)) for row in self._rows], pa.string())
            for name in self._schema.names
        ]
        return pa.table(columns, self._schema)


def _string(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _strings_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])
