"""Runs analytics queries: one connection of the pool for each, within the database's time-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

import anyio.to_thread
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.sql_fragment import SqlFragment
from core.postgres import reading
from stats.histogram import Counts

_ROWS_AT_A_TIME = 200


class Reader:
    """Answers from PostgreSQL; raises `DatabaseUnavailable` when it cannot."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def select(
        self, columns: str, facts: SqlFragment, rest: str = ""
    ) -> Sequence[RowMapping]:
        """`SELECT columns FROM facts rest`."""
        statement = text(f"SELECT {columns} FROM {facts.sql} AS facts {rest}")
        async with reading(self._engine) as connection:
            rows: Sequence[RowMapping] = (
                (await connection.execute(statement, facts.parameters)).mappings().all()
            )
            return rows

    async def histograms(self, facts: SqlFragment) -> dict[tuple[Any, ...], Counts]:
        """Those of `facts.histogram`, by the values that they are by."""
        return _added(cast("Iterable[Any]", row.values()) for row in await self.select("*", facts))

    async def add_histograms(self, keys: str, facts: SqlFragment) -> dict[tuple[Any, ...], Counts]:
        """Those of `facts.histogram_rows` added up by `keys`, expressions of its columns.

        Of many groups, PostgreSQL would take three times as long to add up the bins.
        """
        statement = text(f"SELECT {keys}, bins, counts FROM {facts.sql} AS facts")
        rows: list[Sequence[Any]] = []
        async with reading(self._engine) as connection:
            streamed = await connection.stream(
                statement, facts.parameters, execution_options={"yield_per": _ROWS_AT_A_TIME}
            )
            # Some at a time, because they are decoded on the event loop.
            async for some in streamed.partitions():
                rows += some
        return await anyio.to_thread.run_sync(_added, rows)


def _added(rows: Iterable[Iterable[Any]]) -> dict[tuple[Any, ...], Counts]:
    histograms: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    for *key, bins, counts in rows:
        histograms[tuple(key)].update(dict(zip(bins, counts, strict=True)))
    return dict(histograms)
