"""The lines of a file with their positions; a line of any length takes the same memory."""

from __future__ import annotations

from typing import BinaryIO

from datafiles.chunks import RAW_CHARACTERS, Position, UnusableRow

MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Lines:
    """Reads lines, and keeps the beginning of the current record."""

    def __init__(self, file: BinaryIO, start: Position) -> None:
        file.seek(start.offset)
        self._file = file
        self._raw = b""
        self.offset, self.number = start.offset, start.line
        self.first = start.line + 1

    def begin_record(self) -> None:
        self._raw = b""
        self.first = self.number + 1

    @property
    def raw(self) -> str:
        """The beginning of the current record."""
        return self._raw.decode("utf-8", "replace").rstrip("\r\n")[:RAW_CHARACTERS]

    def next_line(self) -> bytes:
        """Read the next line with its line end; empty at the end of the file.

        Raises:
            UnusableRow: the line is longer than `MAX_LINE_BYTES`; it was skipped.
        """
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            return b""
        part, length = line, len(line)
        while not part.endswith(b"\n") and (part := self._file.readline(MAX_LINE_BYTES)):
            length += len(part)
        is_first = self.offset == 0
        self.offset += length
        self.number += 1
        if len(self._raw) < 4 * RAW_CHARACTERS:
            self._raw += line[: 4 * RAW_CHARACTERS]
        if length > len(line):
            raise UnusableRow(
                f"the line has {length:,} bytes; at most {MAX_LINE_BYTES:,} are allowed"
            )
        return line.removeprefix(_BOM) if is_first else line
