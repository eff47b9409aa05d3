"""Runs analytics queries: one connection of the pool for each, within the database's time-out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import reading
from analytics.facts import Facts


class Reader:
    """Answers from PostgreSQL; raises `DatabaseUnavailable` when it cannot."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def select(self, columns: str, facts: Facts, rest: str = "") -> Sequence[RowMapping]:
        """`SELECT columns FROM facts rest`."""
        statement = text(f"SELECT {columns} FROM {facts.sql} AS facts {rest}")
        async with reading(self._engine) as connection:
            rows: Sequence[RowMapping] = (
                (await connection.execute(statement, facts.parameters)).mappings().all()
            )
            return rows
