"""The source of files with JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import orjson

from core.unreadable import UNREADABLE
from datafiles.chunks import (
    CheckText,
    InvalidInput,
    Position,
    UnusableRow,
    checked_text,
)
from datafiles.columns import find_column, listed, require_few, shown
from datafiles.lines import MAX_SKIPPED_BYTES, Lines
from datafiles.records import Record, RecordSource
from datafiles.text_file import TextFile

# The values as they are written, because a number of Python may have fewer digits.
Members = Mapping[str, msgspec.Raw]
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
# Among so many lines has to be one that tells the columns; to look at them takes half a second.
MAX_LINES_BEFORE = 1 << 16


class JsonSource(RecordSource):
    """A file of JSON lines: one object a line.

    With `keep`, every row has these columns. Without it, a table has those of the first object of
    the file, and `as_lines` repeats each object as it is.
    """

    def __init__(
        self,
        file: TextFile,
        column: str,
        keep: Sequence[str] | None,
        added: Sequence[str] = (),
        check: CheckText = checked_text,
        *,
        as_lines: bool = False,
    ) -> None:
        super().__init__(file)
        if file.sample.lstrip().startswith("["):
            raise InvalidInput(
                "it begins with a JSON array; JSON lines have an object on each line, as"
                " `jq -c '.[]'` writes them"
            )
        self.column = column
        self._keep = keep
        self._added = frozenset(added)
        self._check = check
        self._as_lines = as_lines
        self.names: Sequence[str] = keep or ()
        if keep is None and not as_lines:
            self.names = self._first_keys()

    @property
    def description(self) -> str:
        return f"JSON lines, {self._file.description}"

    def _first_keys(self) -> list[str]:
        with self._file.open(0) as stream:
            lines = Lines(self._file, stream, Position())
            while True:
                lines.begin_record()
                try:
                    if not (line := lines.next_line()):
                        return []
                    if lines.number > MAX_LINES_BEFORE or lines.offset > MAX_SKIPPED_BYTES:
                        raise InvalidInput(f"none of its first {lines.number - 1:,} lines is a row")
                    members = self._parsed(line.strip())
                    self._text(members)
                except UnusableRow:
                    continue
                names = list(members)
                require_few(names)
                return names

    def _reader(self, lines: Lines) -> Callable[[], Record | None]:
        return map(self._record, iter(lines.next_line, b"")).__next__

    def _record(self, line: bytes) -> Record | None:
        line = line.strip()
        if not line:
            return None
        members = self._parsed(line)
        text = self._text(members)
        if self._as_lines and self._keep is None:
            # Unchanged lines keep every digit of a number and the order of the members.
            return Record(text, line)
        if self._as_lines:
            kept = [
                orjson.dumps(name) + b":" + bytes(members[_find(name, members)])
                for name in self.names
            ]
            return Record(text, b"{" + b",".join(kept) + b"}")
        if self._keep is None:
            return Record(text, [_string(members.get(name)) for name in self.names])
        return Record(text, [_string(members[_find(name, members)]) for name in self.names])

    def _parsed(self, line: bytes) -> Members:
        try:
            line.decode()
        except UnicodeDecodeError:
            raise UnusableRow(f"not in {self._file.name}") from None
        try:
            return _MEMBERS.decode(line)
        except msgspec.ValidationError:
            raise UnusableRow("not a JSON object") from None
        except UNREADABLE as error:
            raise UnusableRow(f"invalid JSON: {_reason(line, error)}") from None

    def _text(self, members: Members) -> str:
        """Check the members of a row, and return its text."""
        column = _find(self.column, members)
        for name in self._keep or ():
            _find(name, members)
        if self._keep is None:
            if duplicates := self._added.intersection(members):
                raise UnusableRow(f"already has result columns: {listed(sorted(duplicates))}")
            if self.names and (extra := members.keys() - set(self.names)):
                raise UnusableRow(f"has members that the first row lacks: {listed(sorted(extra))}")
        return self._check(_decoded(bytes(members[column])))


def _find(name: str, members: Members) -> str:
    """The name of a member as the row has it."""
    if name in members:
        return name
    names = list(members)
    try:
        return names[find_column(name, names)]
    except InvalidInput:
        raise UnusableRow(f"the member {shown(name)} is missing") from None


def _string(value: msgspec.Raw | None) -> str | None:
    """A string as it is, and any other value as JSON."""
    raw = b"null" if value is None else bytes(value)
    if raw == b"null":
        return None
    return str(_decoded(raw)) if raw.startswith(b'"') else raw.decode()


def _decoded(raw: bytes) -> object:
    try:
        return _ANY.decode(raw)
    except UNREADABLE as error:
        # Such as 1e999, which is JSON but too large for a number of this machine.
        raise UnusableRow(f"invalid JSON: {_reason(raw, error)}") from None


def _reason(line: bytes, error: Exception) -> str:
    """The reason why a line is no JSON; orjson has the better sentences."""
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as better:
        return str(better)
    return str(error)
