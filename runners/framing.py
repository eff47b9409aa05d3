"""Frames of a stream: the length of a message in four bytes, then the message."""

from __future__ import annotations

import asyncio

LENGTH_BYTES = 4
# A peer that takes nothing is gone, or means no good: more than this is not kept for it.
MAX_UNSENT_BYTES = 64 << 20


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


class FrameWriter:
    """Sends messages; those of one turn of the event loop go out in one write.

    The connection ends if the peer leaves too many bytes of them.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        """Must be called in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._frames: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Send a message, unless the connection ends before this turn does."""
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(frame(message))

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()
            return
        self._transport.write(b"".join(frames))
