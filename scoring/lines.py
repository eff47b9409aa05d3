"""Lines of a file of any size, with the position of each; a line of any length costs the same."""

from __future__ import annotations

from typing import BinaryIO

from scoring.chunks import RAW_CHARACTERS, Position, UnusableRow

MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Lines:
    """Reads lines, and remembers those of the record that is being read."""

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
        """The beginning of the record, as far as it is kept."""
        return self._raw.decode("utf-8", "replace").rstrip("\r\n")[:RAW_CHARACTERS]

    def next_line(self) -> bytes:
        """The next line with its end; nothing at the end of the file.

        Raises:
            UnusableRow: it is longer than `MAX_LINE_BYTES`; it was passed over.
        """
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            return b""
        more, taken = line, len(line)
        while not more.endswith(b"\n") and (more := self._file.readline(MAX_LINE_BYTES)):
            taken += len(more)
        is_first = self.offset == 0
        self.offset += taken
        self.number += 1
        if len(self._raw) < 4 * RAW_CHARACTERS:
            self._raw += line[: 4 * RAW_CHARACTERS]
        if taken > len(line):
            raise UnusableRow(f"a line of {taken:,} bytes; at most {MAX_LINE_BYTES:,} are read")
        return line.removeprefix(_BOM) if is_first else line
