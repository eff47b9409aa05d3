"""Reads gzip files of strangers: members that are next to empty must not take the time of texts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from core.inflate import GZIP, Inflate
from datafiles.chunks import InvalidInput

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# bgzip writes an empty one at the end, and some programs one for each line that they add. Members
# have to hold a byte each in all, beside so many.
EMPTY_MEMBERS = 1_000
# What a member is fed, at first and at most: it gives back what comes after its end.
_FIRST_BYTES, _MOST_BYTES = 1 << 9, 1 << 16


class Gunzip(io.RawIOBase):
    """The content of a gzip file of any number of members (RFC 1952), zeros between them.

    Raises:
        InvalidInput: nearly all of its members are empty.
        zlib.error: it is damaged.
        EOFError: it is cut.
    """

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self._file = file
        self._block = b""
        self._position = 0
        self._members = self._content_bytes = 0
        self._begin_member()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        while not self._member.eof or self._has_another():
            data = self._next_bytes() if self._member.needs_input else b""
            piece = self._member.decompress(data, len(target))
            if self._member.eof:
                self._position -= len(self._member.unused_data)
            if piece:
                target[: len(piece)] = piece
                self._content_bytes += len(piece)
                return len(piece)
        return 0

    def _has_another(self) -> bool:
        while self._position < len(self._block) or self._read():
            if self._block[self._position]:
                self._begin_member()
                return True
            self._block = self._block[self._position :].lstrip(b"\0")
            self._position = 0
        return False

    def _begin_member(self) -> None:
        self._members += 1
        if self._members > EMPTY_MEMBERS + self._content_bytes:
            raise InvalidInput(f"nearly all of its first {self._members:,} gzip members are empty")
        self._member = Inflate(GZIP)
        self._fed_bytes = _FIRST_BYTES

    def _next_bytes(self) -> bytes:
        if self._position == len(self._block) and not self._read():
            raise EOFError("it ends within a member")
        data = self._block[self._position : self._position + self._fed_bytes]
        self._position += len(data)
        self._fed_bytes = min(2 * self._fed_bytes, _MOST_BYTES)
        return data

    def _read(self) -> bool:
        self._block, self._position = self._file.read1(_MOST_BYTES), 0
        return bool(self._block)
