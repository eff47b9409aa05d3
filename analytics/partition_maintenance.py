"""Keeps the prediction log's days: partitions made ahead of time, old ones dropped."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.partitions import drop_day, make_partitions, partition_days
from analytics.rollups import WRITERS_LOCK
from core.postgres import DATABASE_FAILURES

logger = logging.getLogger("bentoml.sentiment.upkeep")

# The writer makes what is missing itself; ahead of time, no batch waits for it.
DAYS_AHEAD = 7
HOUR_SECONDS = 3_600.0
RETRY_SECONDS = 60.0


class PartitionMaintenance:
    """Runs when serving starts and every hour, in each API process; they wait for one another."""

    def __init__(self, engine: AsyncEngine, *, retention_days: int) -> None:
        """Days that ended `retention_days` ago or earlier are dropped; with 0, none is."""
        self._engine = engine
        self._retention_days = retention_days
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="upkeep")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, today: date) -> list[date]:
        """Make and drop what is due; tells what was dropped. Raises `DATABASE_FAILURES`."""
        async with self._engine.begin() as connection:
            await connection.execute(WRITERS_LOCK)
            await make_partitions(
                connection, [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)]
            )
            present = await partition_days(connection)
        first_kept = today - timedelta(days=self._retention_days)
        expired = [day for day in present if day < first_kept] if self._retention_days else []
        return [day for day in expired if await self._drop(day)]

    async def _drop(self, day: date) -> bool:
        # A transaction for each: the writers wait for one day at most.
        async with self._engine.begin() as connection:
            await connection.execute(WRITERS_LOCK)
            return await drop_day(connection, day)

    async def _keep(self) -> None:
        while True:
            try:
                dropped = await self.run(datetime.now(UTC).date())
            except DATABASE_FAILURES as error:
                logger.warning("the log's days are not kept now, trying again: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if dropped:
                    logger.info("dropped the log of %s", ", ".join(map(str, dropped)))
                await asyncio.sleep(HOUR_SECONDS)
