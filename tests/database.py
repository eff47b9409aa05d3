"""Plain SQL for the tests, past everything that they test."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from sqlalchemy import URL

from core.urls import DEFAULT_PORT


def run_sql(url: URL, statement: str) -> None:
    """Run one statement outside a transaction."""
    fetch(url, statement)


async def connect(url: URL) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=str(url.query["host"]),
        port=int(str(url.query.get("port", DEFAULT_PORT))),
        user=url.username,
        password=url.password,
        database=url.database,
    )


def fetch(url: URL, statement: str) -> list[dict[str, Any]]:
    """The rows of one statement."""

    async def run() -> list[dict[str, Any]]:
        connection = await connect(url)
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


def scalar(url: URL, statement: str) -> Any:
    """The only value of the only row."""
    [row] = fetch(url, statement)
    [value] = row.values()
    return value
