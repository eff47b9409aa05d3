"""The source of files with JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa

from scoring.chunks import InputColumns, Position, UnusableRow, checked_text
from scoring.lines import Lines
from scoring.records import Record, RecordSource, strings_schema

# The line as it was read, and its members.
JsonObject = tuple[bytes, dict[str, object]]


class JsonSource(RecordSource[JsonObject]):
    """A file of JSON lines: one object a line, in UTF-8.

    With `keep`, every row has these columns; with `fixed`, those of the first object of the file.
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
        self.schema = strings_schema(list(keep or self._fixed or ()))

    def _first_keys(self) -> list[str]:
        with self._path.open("rb") as file:
            for record in self._records(Lines(file, Position())):
                if isinstance(record, Record):
                    return list(record.values[1])
        return []

    def _reader(self, lines: Lines) -> Iterator[JsonObject | None]:
        return _JsonReader(lines)

    def _text(self, values: JsonObject) -> str:
        _, members = values
        for name in (self._column, *(self._keep or ())):
            if name not in members:
                raise UnusableRow(f"the member {name} is missing")
        if self._keep is None:
            if duplicates := self._added.intersection(members):
                raise UnusableRow(f"already has result columns: {', '.join(sorted(duplicates))}")
            if self._fixed is not None and (extra := members.keys() - set(self._fixed)):
                raise UnusableRow(
                    f"has members that the first row lacks: {', '.join(sorted(extra))}"
                )
        return checked_text(members[self._column])

    def _columns(self, rows: Sequence[JsonObject]) -> InputColumns:
        if self._keep is None and self._fixed is None:
            # Unchanged lines keep every digit of a number and the order of the members.
            return _UnchangedLines([line for line, _ in rows])
        return _Members(self.schema, [members for _, members in rows])


class _JsonReader:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[JsonObject | None]:
        return self

    def __next__(self) -> JsonObject | None:
        line = self._lines.next_line()
        if not line:
            raise StopIteration
        line = line.strip()
        if not line:
            return None
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UnusableRow(f"invalid JSON: {error}") from None
        if not isinstance(members, dict):
            raise UnusableRow("not a JSON object")
        return line, members


class _UnchangedLines:
    """JSON objects as they were read, for an output of JSON lines."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def as_json(self) -> Sequence[bytes]:
        return self._lines

    def as_strings(self) -> Sequence[Sequence[str]]:
        raise NotImplementedError

    def as_table(self) -> pa.Table:
        raise NotImplementedError


class _Members:
    """The same members of every object; CSV and Parquet get every value as a string."""

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
