"""What waits after an outage is stored over a link that carries little more than the traffic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import segments
from analytics.log.shipper import Shipper
from analytics.log.spool import Spool
from analytics.log.writer import LogWriter
from core.postgres import create_engine
from tests.integration.predictions import make_prediction

PREDICTIONS = 600
CHARACTERS = 5_000
# Three times as long as a statement may take, for all of them.
BYTES_PER_SECOND = 1_000_000
TIMEOUT_SECONDS = 1.0
PIECE_BYTES = 8_192


@asynccontextmanager
async def slow_link(to: URL) -> AsyncIterator[URL]:
    """The URL of a TCP port that leads to a PostgreSQL; what is sent to it comes slowly."""
    socket = f"{to.query['host']}/.s.PGSQL.{to.port or 5432}"
    free_at = 0.0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal free_at
        while data := await reader.read(PIECE_BYTES):
            free_at = max(free_at, time.monotonic()) + len(data) / BYTES_PER_SECOND
            await asyncio.sleep(free_at - time.monotonic())
            writer.write(data)
            await writer.drain()

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(socket)
        ways = [
            asyncio.ensure_future(slowly(reader, server_writer)),
            asyncio.ensure_future(at_once(server_reader, writer)),
        ]
        with suppress(ConnectionError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, server_writer):
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()

    server = await asyncio.start_server(connect, "127.0.0.1", 0, limit=PIECE_BYTES)
    try:
        port = server.sockets[0].getsockname()[1]
        yield to.set(host="127.0.0.1", port=port, query={"ssl": "disable"})
    finally:
        server.close()
        await server.wait_closed()


async def stored(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM predictions")) or 0)


async def ship(folder: Path, url: URL) -> None:
    engine = create_engine(url, pool_size=1, timeout_seconds=TIMEOUT_SECONDS)
    stopping = asyncio.Event()
    stopping.set()
    try:
        async with asyncio.timeout(120):
            await Shipper(folder, LogWriter(engine), poll_seconds=0.01).run(stopping)
    finally:
        await engine.dispose()


@pytest.fixture
async def backlog(tmp_path: Path) -> Path:
    """A spool with much more than passes in the time of a statement."""
    spool = Spool(tmp_path, max_bytes=1 << 30, durability="page_cache", when_full="refuse")
    spool.start()
    for number in range(PREDICTIONS // 20):
        made = [make_prediction(f"{number} {place} ".ljust(CHARACTERS, "x")) for place in range(20)]
        await spool.append(encode(Entry(tuple(to_record(each, "full") for each in made))))
    await spool.close()
    return tmp_path


async def test_backlog_is_stored_once_over_a_slow_link(
    backlog: Path, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with slow_link(engine.url) as url:
        await ship(backlog, url)
    assert await stored(engine) == PREDICTIONS
    assert segments(backlog) == []
    assert "smaller batches follow" in caplog.text


async def test_backlog_is_stored_once_by_a_role_whose_statements_have_little_time(
    backlog: Path, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        name = (await connection.scalar(text("SELECT current_database()"))) or ""
        await connection.execute(text(f"ALTER DATABASE {name} SET statement_timeout = '30ms'"))
    try:
        await ship(backlog, engine.url)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {name} RESET statement_timeout"))
    assert await stored(engine) == PREDICTIONS
