"""The lines of a file with their positions; a line of any length takes the same memory."""

from __future__ import annotations

from collections import deque
from typing import BinaryIO, NamedTuple

from datafiles.chunks import RAW_CHARACTERS, InvalidInput, Position, UnusableRow
from datafiles.text_file import TextFile

MAX_LINE_BYTES = 1 << 20
# The rest of a longer line is skipped, but not for ever: a little compressed data may be a line of
# many gigabytes.
MAX_SKIPPED_BYTES = 1 << 28
# Of one record, from one call of the watch to the next: a little compressed data may be a million.
_WATCHED_LINES = 4_096
_BOM = b"\xef\xbb\xbf"


class _Line(NamedTuple):
    """A line, or the beginning of one that is too long, and the length of all of it."""

    content: bytes
    length: int


class Lines:
    """Reads lines, and keeps those of the current record.

    A record has at most `MAX_LINE_BYTES`, so that an open quote does not take the rest of the file.
    """

    def __init__(self, text_file: TextFile, file: BinaryIO, start: Position) -> None:
        self._original = text_file.original
        self._watch = text_file.watch
        self._file = file
        self._record: list[_Line] = []
        self._record_bytes = 0
        self._again: deque[_Line] = deque()
        self.offset, self.number = start.offset, start.line
        self.first = start.line + 1

    def begin_record(self) -> None:
        self._record.clear()
        self._record_bytes = 0
        self.first = self.number + 1

    @property
    def raw(self) -> str:
        """The beginning of the current record."""
        beginning = b"".join(line.content for line in self._record[:RAW_CHARACTERS])
        text = beginning[: 4 * RAW_CHARACTERS].decode("utf-8", "replace")
        return text.rstrip("\r\n")[:RAW_CHARACTERS]

    def next_line(self) -> bytes:
        """Read the next line with its line end; empty at the end of the file.

        Raises:
            UnusableRow: the line or its record is longer than `MAX_LINE_BYTES`; it was skipped.
        """
        line = self._again.popleft() if self._again else self._read()
        if not line.length:
            return b""
        self._record.append(line)
        if not len(self._record) % _WATCHED_LINES:
            self._watch()
        self.offset += line.length
        self.number += 1
        self._record_bytes += line.length
        if self._record_bytes > MAX_LINE_BYTES:
            size = f"{self._record_bytes:,} bytes; at most {MAX_LINE_BYTES:,} are allowed"
            raise UnusableRow(f"the {'line' if len(self._record) == 1 else 'row'} has {size}")
        return line.content

    def return_all_but_first(self) -> None:
        """Read the lines of the record again, without its first one, as records of their own."""
        first, *others = self._record
        self.offset -= sum(line.length for line in others)
        self.number -= len(others)
        self._again.extendleft(reversed(others))
        self._record = [first]

    def _read(self) -> _Line:
        content = self._file.readline(MAX_LINE_BYTES)
        part, length = content, len(content)
        while part and not part.endswith(b"\n"):
            part = self._file.readline(MAX_LINE_BYTES)
            length += len(part)
            if length > MAX_SKIPPED_BYTES:
                raise InvalidInput(
                    f"line {self.number + 1:,} has more than {MAX_SKIPPED_BYTES:,} bytes"
                )
        if self.offset == 0:
            # Tools that add one to a file that has one already leave two.
            while content.startswith(_BOM):
                content = content.removeprefix(_BOM)
        return _Line(self._original(content), length)
