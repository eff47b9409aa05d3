"""Queries of requests: each is answered or fails soon, and is counted either way."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.rollups import WRITERS_LOCK
from core.errors import DatabaseUnavailable
from core.paths import ROOT
from core.postgres import (
    PING_SECONDS,
    connected,
    create_engine,
    opened_engine,
    reading,
)
from core.postgres_sessions import READ_ONLY_SECONDS
from loadtest.ports import free_port
from tests.database import run_sql


def queries(query_type: str) -> float:
    return REGISTRY.get_sample_value("db_queries_total", {"type": query_type}) or 0.0


@pytest.fixture
async def hasty(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection and a short time-out."""
    engine = create_engine(database_url, pool_size=1, timeout_seconds=2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def dead(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine of a server that does not exist."""
    nowhere = database_url.update_query_dict({"host": "/nowhere"})
    engine = create_engine(nowhere, pool_size=1, timeout_seconds=1)
    yield engine
    await engine.dispose()


async def test_slow_statement_is_unavailable_and_frees_its_connection(
    hasty: AsyncEngine,
) -> None:
    before = queries("select")
    with pytest.raises(DatabaseUnavailable, match="try again"):
        async with reading(hasty) as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))
    async with reading(hasty) as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    assert queries("select") - before == 2


async def test_exhausted_pool_is_unavailable(hasty: AsyncEngine) -> None:
    async with hasty.connect():
        with pytest.raises(DatabaseUnavailable):
            async with reading(hasty):
                raise AssertionError
    async with reading(hasty) as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_dead_server_is_unavailable(dead: AsyncEngine) -> None:
    before = queries("select")
    with pytest.raises(DatabaseUnavailable) as caught:
        async with reading(dead):
            raise AssertionError
    assert caught.value.status == 503
    assert queries("select") - before == 1


async def test_connection_that_the_server_closed_is_replaced(
    engine: AsyncEngine, hasty: AsyncEngine
) -> None:
    async with reading(hasty) as connection:
        process = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": process})
    async with reading(hasty) as connection:
        assert await connection.scalar(text("SELECT pg_backend_pid()")) != process


async def test_bug_in_the_block_is_not_reported_as_an_outage(engine: AsyncEngine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with reading(engine):
            raise ZeroDivisionError


async def test_deadline_of_the_caller_raises_its_own_timeout(engine: AsyncEngine) -> None:
    async def query() -> None:
        async with asyncio.timeout(0.2), reading(engine) as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(TimeoutError):
        await query()


async def test_connected_is_true_only_for_a_living_server(
    engine: AsyncEngine, dead: AsyncEngine
) -> None:
    before = queries("ping")
    assert await connected(engine) is True
    assert await connected(dead) is False
    assert queries("ping") - before == 2


async def test_server_that_hangs_is_not_connected_and_soon(database_url: URL) -> None:
    accepted = []
    hanging = await asyncio.start_server(
        lambda reader, writer: accepted.append((reader, writer)), "127.0.0.1", 0
    )
    host, port = hanging.sockets[0].getsockname()
    url = database_url.set(host=host, port=port, query={"ssl": "disable"})
    engine = create_engine(url, pool_size=1, timeout_seconds=60)
    async with asyncio.timeout(PING_SECONDS + 20):  # the engine's own time is 60 s
        assert await connected(engine) is False
    assert len(accepted) == 1
    accepted[0][1].close()
    hanging.close()
    await engine.dispose()


@asynccontextmanager
async def read_only(server: URL, database: str | None) -> AsyncIterator[None]:
    """New sessions of the database are read-only, as on a primary that became a replica."""
    alter = f"ALTER DATABASE {database} %s default_transaction_read_only"
    await asyncio.to_thread(run_sql, server, f"{alter % 'SET'} = on")
    try:
        yield
    finally:
        await asyncio.to_thread(run_sql, server, alter % "RESET")


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMP TABLE written (n int) ON COMMIT DROP"))


async def test_read_only_answer_replaces_every_session_of_the_pool(
    postgres_server: URL, database_url: URL
) -> None:
    engine = create_engine(database_url, pool_size=3, timeout_seconds=5)
    async with (
        read_only(postgres_server, database_url.database),
        engine.connect(),
        engine.connect(),
        engine.connect(),
    ):
        pass
    # Three sessions are idle, and stay read-only for as long as they live.
    with pytest.raises(DBAPIError, match="read-only transaction"):
        await write(engine)
    await asyncio.gather(*(write(engine) for _ in range(3)))
    await engine.dispose()


async def test_read_only_session_that_only_reads_is_replaced_in_time(
    postgres_server: URL, database_url: URL
) -> None:
    engine = create_engine(database_url, pool_size=1, timeout_seconds=5)

    async def is_read_only() -> bool:
        async with reading(engine) as connection:
            return bool(await connection.scalar(text("SHOW transaction_read_only")) == "on")

    async with read_only(postgres_server, database_url.database):
        assert await is_read_only()
        await asyncio.sleep(READ_ONLY_SECONDS)
        # Nothing but a read-only server is there, and it answers.
        assert await is_read_only()
    await asyncio.sleep(READ_ONLY_SECONDS)
    assert not await is_read_only()
    await engine.dispose()


async def test_session_outlives_a_change_of_a_table_that_it_copies_to(engine: AsyncEngine) -> None:
    async def copy(value: object) -> None:
        async with engine.begin() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            await raw.driver_connection.copy_records_to_table("copied", records=[(value,)])

    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE copied (n int)"))
    await copy(1)
    await asyncio.to_thread(run_sql, engine.url, "ALTER TABLE copied ALTER n TYPE text")
    await copy("two")


NAMES = (
    "jit", "work_mem", "max_parallel_workers_per_gather", "timezone", "extra_float_digits",
    "bytea_output",
)  # fmt: skip


SET = ["off", "32MB", "0", "UTC", "1", "hex"]


async def settings(connection: AsyncConnection) -> list[str]:
    return [await connection.scalar(text(f"SHOW {name}")) for name in NAMES]


async def test_connection_has_the_settings_of_the_service(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await settings(connection) == SET


@pytest.mark.parametrize(
    ("configured", "used"), [("off", "local"), ("remote_write", "remote_write")]
)
@pytest.mark.parametrize("is_pooled", [False, True])
async def test_commit_waits_for_the_disk_whatever_the_database_says(
    database_url: URL, configured: str, used: str, *, is_pooled: bool
) -> None:
    """What was committed is deleted from the spool, so a crash of the server must not lose it."""
    database = database_url.database
    await asyncio.to_thread(
        run_sql, database_url, f"ALTER DATABASE {database} SET synchronous_commit = {configured}"
    )
    async with AsyncExitStack() as between:
        url = database_url
        if is_pooled:
            server = Path(str(url.query["host"])) / ".s.PGSQL.5432"
            port = await between.enter_async_context(pooler(server))
            url = url.set(query={}, host="127.0.0.1", port=port)
        engine = create_engine(url, pool_size=1, timeout_seconds=5)
        async with engine.begin() as connection:
            assert await connection.scalar(text("SHOW synchronous_commit")) == used
        await engine.dispose()


@pytest.mark.parametrize(("configured", "used"), [("0", "3s"), ("2min", "2min")])
async def test_statement_ends_on_the_server_too_unless_the_database_says_otherwise(
    database_url: URL, configured: str, used: str
) -> None:
    setting = f"SET statement_timeout = '{configured}'"
    await asyncio.to_thread(
        run_sql, database_url, f"ALTER DATABASE {database_url.database} {setting}"
    )
    async with (
        opened_engine(database_url, timeout_seconds=1.5) as engine,
        engine.connect() as connection,
    ):
        assert await connection.scalar(text("SHOW statement_timeout")) == used


@pytest.mark.parametrize("is_first", [True, False])
async def test_host_that_is_silent_keeps_none_from_another_that_writes(
    database_url: URL, *, is_first: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = ["127.0.0.1", str(database_url.query["host"])]
        ports = [silent.getsockname()[1], 5432]
        if not is_first:
            hosts.reverse()
            ports.reverse()
        query = {
            "host": ",".join(hosts), "port": ",".join(map(str, ports)),
            "target_session_attrs": "read-write",
        }  # fmt: skip
        url = database_url.set(query=query)
        async with (
            opened_engine(url, timeout_seconds=3, pool_size=2) as engine,
            engine.connect() as connection,
        ):
            assert await connection.scalar(text("SELECT 1")) == 1
            # It is asked first from now on.
            async with asyncio.timeout(1), engine.connect() as another:
                assert await another.scalar(text("SELECT 1")) == 1


async def test_silent_hosts_are_an_outage_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports = [str(each.getsockname()[1]) for each in (one, other)]
        query = {
            "host": "127.0.0.1,127.0.0.1", "port": ",".join(ports),
            "target_session_attrs": "read-write",
        }  # fmt: skip
        url = URL.create("postgresql+asyncpg", "a", query=query)
        async with opened_engine(url, timeout_seconds=1) as engine, asyncio.timeout(30):
            with pytest.raises(TimeoutError):
                await engine.connect()


async def test_writer_that_does_nothing_does_not_keep_its_lock(engine: AsyncEngine) -> None:
    name = "SHOW idle_in_transaction_session_timeout"
    async with engine.connect() as connection:
        await connection.execute(WRITERS_LOCK)
        assert await connection.scalar(text(name)) == "1min"
        await connection.rollback()
        assert await connection.scalar(text(name)) == "0"


@pytest.mark.parametrize("configured", ["repeatable read", "serializable"])
async def test_what_a_transaction_reads_under_a_lock_is_new_whatever_the_database_says(
    database_url: URL, configured: str
) -> None:
    """Else an erasure could miss what was stored while it waited, and be undone by it."""
    setting = f"SET default_transaction_isolation = '{configured}'"
    await asyncio.to_thread(
        run_sql, database_url, f"ALTER DATABASE {database_url.database} {setting}"
    )
    engine = create_engine(database_url, pool_size=2, timeout_seconds=5)
    count = text("SELECT count(*) FROM erasures")
    async with engine.connect() as waits, engine.connect() as writes:
        assert await waits.scalar(text("SHOW transaction_isolation")) == "read committed"
        assert await waits.scalar(count) == 0
        await writes.execute(text("INSERT INTO erasures (erased_at) VALUES (now())"))
        await writes.commit()
        assert await waits.scalar(count) == 1
    await engine.dispose()


async def test_behind_a_pooler_nothing_outlives_a_transaction(database_url: URL) -> None:
    """`make prove-pooler` has a real PgBouncer; it is not on every machine."""
    async with pooler(Path(str(database_url.query["host"])) / ".s.PGSQL.5432") as port:
        url = database_url.set(query={}, host="127.0.0.1", port=port)
        engine = create_engine(url, pool_size=1, timeout_seconds=5)
        async with engine.connect() as connection:
            assert await settings(connection) == SET
            await connection.rollback()
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            status = await raw.driver_connection.execute(
                "SELECT FROM pg_settings WHERE name IN ('jit', 'work_mem') AND source = 'session'"
            )
            assert status == "SELECT 0"
            status = await raw.driver_connection.execute("SELECT FROM pg_prepared_statements")
            assert status == "SELECT 0"
        await engine.dispose()


@asynccontextmanager
async def pooler(server: Path) -> AsyncIterator[int]:
    """Forwards connections, and makes up process ids as a pooler does."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(server)

        async def pump(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, length: bytes
        ) -> None:
            while piece := await source.read(65_536):
                head, key_data, rest = piece.partition(length)
                target.write(head + key_data + (b"\0\0\0\1" + rest[4:] if key_data else b""))
            target.close()

        key_data = b"K\0\0\0\x0c"
        await asyncio.gather(
            pump(reader, server_writer, b"\0no such bytes"), pump(server_reader, writer, key_data)
        )
        ended.release()

    ended = asyncio.Semaphore(0)
    port = free_port()
    listener = await asyncio.start_server(forward, "127.0.0.1", port)
    yield port
    listener.close()
    for _ in ("the first connection, which shows that it is a pooler", "the one that is used"):
        await asyncio.wait_for(ended.acquire(), 5)


# What is imported late, once more as another user, may lie where that user cannot read.
IN_A_CLOSED_HOME = """
import asyncio, os, sys
from sqlalchemy import URL
from core.postgres import create_engine

async def attempt():
    url = URL.create("postgresql+asyncpg", "ann", host="127.0.0.1", port=int(sys.argv[1]))
    engine = create_engine(url, pool_size=1, timeout_seconds=5)
    try:
        await engine.connect()
    except Exception as error:
        return type(error).__name__
    finally:
        await engine.dispose()

os.environ["HOME"], closed = "/nonexistent", os.environ["HOME"]
before = asyncio.run(attempt())
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(54321)
os.environ["HOME"] = closed
print(before, asyncio.run(attempt()), os.environ["HOME"])
"""


def test_home_that_this_user_may_not_enter_breaks_no_connection(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CLOSED_HOME, str(free_port())],
        cwd=ROOT, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["ConnectionRefusedError"] * 2 + ["/nonexistent"], done.stderr
