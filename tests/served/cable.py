"""A cable between a service and a server, which can be cut, made slow, or left hanging."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK_BYTES = 65_536

Address = Path | int  # a Unix socket, or a local port


class Cable:
    """Forwards connections to `target`; runs in a thread of its own."""

    def __init__(self, target: Address) -> None:
        self.delay_seconds = 0.0  # before each piece of data, either way
        self.pieces = 0  # that have been forwarded
        self.target = target
        self._cut_every = 0
        self._connections: set[asyncio.WriteTransport] = set()
        self._loop = asyncio.new_event_loop()

    def cut(self) -> None:
        """End all connections, wherever they are."""
        self._loop.call_soon_threadsafe(self._cut)

    @contextmanager
    def cutting_every(self, pieces: int) -> Iterator[None]:
        """End all connections with each so-manyth piece of data, which is lost."""
        self._cut_every = pieces
        try:
            yield
        finally:
            self._cut_every = 0

    @contextmanager
    def slow(self, delay_seconds: float) -> Iterator[None]:
        self.delay_seconds = delay_seconds
        try:
            yield
        finally:
            self.delay_seconds = 0.0

    def _cut(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    @contextmanager
    def listening(self, address: Address) -> Iterator[None]:
        started = threading.Event()
        stop = asyncio.Event()

        async def serve() -> None:
            server = await _listen(self._forward, address)
            started.set()
            await stop.wait()
            server.close()
            self._cut()
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

        thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        thread.start()
        assert started.wait(10)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join()
            self._loop.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await _connect(self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer.transport, there_writer.transport}
        self._connections |= ends
        try:
            with suppress(OSError):
                await asyncio.gather(
                    self._pump(reader, there_writer), self._pump(there_reader, writer)
                )
        finally:
            self._connections -= ends
            for end in ends:
                end.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(CHUNK_BYTES):
            self.pieces += 1
            if self._cut_every and self.pieces % self._cut_every == 0:
                self._cut()
                return
            await asyncio.sleep(self.delay_seconds)
            writer.write(piece)
            await writer.drain()
        raise ConnectionResetError  # the other direction ends too


async def _listen(
    forward: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    address: Address,
) -> asyncio.Server:
    if isinstance(address, Path):
        server = await asyncio.start_unix_server(forward, address)
        address.chmod(0o777)
        return server
    return await asyncio.start_server(forward, "127.0.0.1", address)


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection("127.0.0.1", address)
