"""A small HTTP server whose answers are known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

GOOD = b'{"sentiment":"positive","confidence":0.9}'
_LENGTH = re.compile(r"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


def response(status: int = 200, body: bytes = GOOD, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Told\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class TinyServer:
    """Answers its n-th request with `answer(n)`; nothing at all ends the connection."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[Any]] = []
        self.first_ended = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self, path: Path | None = None) -> AsyncIterator[TinyServer]:
        """On a port of its own, or on the Unix socket at `path`."""
        if path is not None:
            server = await asyncio.start_unix_server(self._serve, path)
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            for writer in self._writers:
                writer.close()
            server.close()
            await server.wait_closed()
            # asyncio's own wait_closed does not wait for these before Python 3.12.
            closed = (writer.wait_closed() for writer in self._writers)
            await asyncio.gather(*closed, *self._serving, return_exceptions=True)

    def hang_up(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if (serving := asyncio.current_task()) is not None:
            self._serving.append(serving)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = _LENGTH.search(head)
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(length[1]) if length else 0))
                answer = self._answer(len(self.bodies))
                writer.write(answer)
                if not answer or b"Connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.first_ended.set()
        writer.close()
