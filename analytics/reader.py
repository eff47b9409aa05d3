"""Runs analytics queries: one connection of the pool for each, within the database's time-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import reading
from analytics.facts import Facts
from analytics.statistics.histogram import Counts


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

    async def histograms(self, facts: Facts) -> dict[tuple[Any, ...], Counts]:
        """Those of `facts.histogram`, by the values that they are by."""
        histograms: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
        for row in await self.select("*", facts):
            *key, bins, counts = cast("Iterable[Any]", row.values())
            # Several of a key where a version had several revisions.
            histograms[tuple(key)].update(dict(zip(bins, counts, strict=True)))
        return dict(histograms)
