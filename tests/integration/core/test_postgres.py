"""Queries of requests: each is answered or fails soon, and is counted either way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import DatabaseUnavailable
from core.postgres import connected, create_engine, reading


def queries(query_type: str) -> float:
    return REGISTRY.get_sample_value("db_queries_total", {"type": query_type}) or 0.0


@pytest.fixture
async def hasty(database_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection and a short time-out."""
    engine = create_engine(database_url, pool_size=1, timeout_seconds=0.5)
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
