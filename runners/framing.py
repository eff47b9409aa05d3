"""Frames of a stream: the length of a message in four bytes, then the message."""

from __future__ import annotations

LENGTH_BYTES = 4


class FrameTooLarge(ValueError):
    """A frame announces more bytes than its reader takes."""


def frame(message: bytes) -> bytes:
    """Put the length of a message before it."""
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


class FrameReader:
    """Cuts the bytes of a connection into messages."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is the most that a message may have."""
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; returns the messages that are whole now.

        Raises:
            FrameTooLarge: the next message is too large. What follows cannot be read.
        """
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= LENGTH_BYTES:
            size = int.from_bytes(buffer[start : start + LENGTH_BYTES], "big")
            if size > self._max_bytes:
                raise FrameTooLarge(
                    f"a message of {size:,} bytes; at most {self._max_bytes:,} are taken"
                )
            end = start + LENGTH_BYTES + size
            if len(buffer) < end:
                break
            messages.append(bytes(buffer[start + LENGTH_BYTES : end]))
            start = end
        del buffer[:start]
        return messages
