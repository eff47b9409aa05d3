"""A relay of TCP connections, which can forget those that it has, as a router does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Passes bytes on. What is sent over a forgotten connection is taken, and lost."""

    def __init__(self) -> None:
        self._connections: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()

    def forget(self) -> None:
        self._forgotten |= self._connections

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[str]:
        """The URL at which it passes on to `url`."""
        target = urlsplit(url)

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(target.hostname, target.port)
            self._connections.add(writer)
            try:
                with suppress(ConnectionError):
                    await asyncio.gather(
                        self._pass_on(reader, back, writer), self._pass_on(there, writer, writer)
                    )
            finally:
                for end in (writer, back):
                    end.close()

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, of: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65_536):
            if of not in self._forgotten:
                to.write(data)
                await to.drain()
        to.close()
