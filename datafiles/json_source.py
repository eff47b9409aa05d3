"""The source of files with JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from datafiles.chunks import Columns, Position, UnusableRow, checked_text
from datafiles.lines import Lines
from datafiles.records import Record, RecordSource, strings_schema


class JsonSource(RecordSource):
    """A file of JSON lines: one object a line, in UTF-8.

    With `keep`, every row has these columns. Without it, a table has those of the first object of
    the file, and `as_lines` repeats each object as it is.
    """

    def __init__(
        self,
        path: Path,
        column: str,
        keep: Sequence[str] | None,
        added: Sequence[str],
        *,
        as_lines: bool,
    ) -> None:
        super().__init__(path)
        self._column = column
        self._keep = keep
        self._added = frozenset(added)
        self._as_lines = as_lines
        self._fixed: list[str] | None = None
        if keep is None and not as_lines:
            self._fixed = self._first_keys()
        self.schema = strings_schema(keep or self._fixed or ())

    def _first_keys(self) -> list[str]:
        with self._path.open("rb") as file:
            for record in self._records(Lines(file, Position())):
                if isinstance(record, Record) and isinstance(record.row, dict):
                    return list(record.row)
        return []

    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        return map(self._record, iter(lines.next_line, b"")).__next__

    def _record(self, line: bytes) -> Record | None:
        line = line.strip()
        if not line:
            return None
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UnusableRow(f"invalid JSON: {error}") from None
        if not isinstance(members, dict):
            raise UnusableRow("not a JSON object")
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
        text = checked_text(members[self._column])
        if not self._as_lines:
            return Record(text, members)
        if self._keep is None:
            # Unchanged lines keep every digit of a number and the order of the members.
            return Record(text, line)
        return Record(text, orjson.dumps({name: members[name] for name in self._keep}))

    def _columns(self, rows: Sequence[Any]) -> Columns:
        return rows if self._as_lines else super()._columns(rows)
