"""Runs analytics queries: one connection of the pool for each, within the database's time-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import anyio.to_thread
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.shape import Query
from core.postgres import reading
from stats.histogram import Counts

_ROWS_AT_A_TIME = 200

AnyRow = Row[*tuple[Any, ...]]
Histograms = dict[tuple[Any, ...], Counts]


class Reader:
    """Answers from PostgreSQL; raises `DatabaseUnavailable` when it cannot."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def select(self, query: Query) -> Sequence[AnyRow]:
        async with reading(self._engine) as connection:
            rows: Sequence[AnyRow] = (await connection.execute(*query)).all()
            return rows

    async def histograms(self, query: Query) -> Histograms:
        """Histograms by key, from rows of a key's columns, bins and counts."""
        return _added(await self.select(query))

    async def many_histograms(self, query: Query) -> Histograms:
        """As `histograms`, for thousands of rows, which are added up in a thread.

        Of many groups, PostgreSQL would take three times as long to add up the bins.
        """
        rows: list[AnyRow] = []
        async with reading(self._engine) as connection:
            streamed = await connection.stream(
                *query, execution_options={"yield_per": _ROWS_AT_A_TIME}
            )
            # In portions, because the event loop decodes them.
            async for portion in streamed.partitions():
                rows += portion
        return await anyio.to_thread.run_sync(_added, rows)


def _added(rows: Iterable[AnyRow]) -> Histograms:
    histograms: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    for *key, bins, counts in rows:
        histograms[tuple(key)].update(dict(zip(bins, counts, strict=True)))
    return dict(histograms)
