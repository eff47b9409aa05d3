"""Creates the prediction log's partitions ahead of time and drops the expired ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.erasures import forget_tombstones
from analytics.expired_days import delete_rows_of_day, drop_day
from analytics.expired_texts import ExpiredTexts
from analytics.partitions import begin_of_day, has_partition, make_partitions, partition_days
from analytics.rollups import DROP_PARTITIONS, WRITERS_LOCK
from core import metrics
from core.admin_log import admin_actions
from core.background import Background
from core.postgres import DATABASE_FAILURES, describe_failure, is_missing_right, server_now

logger = logging.getLogger("bentoml.sentiment.partition_maintenance")

# The writer creates a missing partition itself, but the batch then waits for it.
DAYS_AHEAD = 7
_AHEAD = range(DAYS_AHEAD + 1)
# What is made ahead after the service stood still: fewer days, and one further on, which tells a
# start of tomorrow that this was today.
DAYS_AHEAD_AT_FIRST, MARKED_DAY = 5, 9
HOUR_SECONDS = 3_600.0
# Two clocks that are right may be on both sides of midnight.
MOST_APART = timedelta(days=1)
RETRY_SECONDS = 60.0
# PostgreSQL refuses to delete younger admin actions (migration 0013).
MIN_ADMIN_LOG_DAYS = 366


def _ran_lately(present: Sequence[date], today: date) -> bool:
    """Whether a service made partitions ahead today or yesterday, so that the clock is right.

    Also if nothing is there that could be dropped.
    """
    by_then = (today + timedelta(days=DAYS_AHEAD - 1), today + timedelta(days=MARKED_DAY - 1))
    return not any(day < today for day in present) or not set(present).isdisjoint(by_then)


class PartitionMaintenance(Background):
    """Runs at start and every hour in each API process; a lock lets one process run at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        retention_days: int,
        text_days: int = 0,
        admin_log_days: int = 0,
    ) -> None:
        """Drop the days that ended `retention_days` ago or earlier; 0 keeps every day.

        Texts are removed after `text_days`, and admin actions after `admin_log_days`.
        """
        self._engine = engine
        self._retention_days = retention_days
        self._text_days = text_days
        self._admin_log_days = admin_log_days
        self._texts = ExpiredTexts(engine)

    async def run(self, today: date, by_server: date | None = None) -> list[date]:
        """Create and drop the partitions that are due; return the days that were dropped.

        `by_server` is today by PostgreSQL's clock, if it is another one. What is removed for its
        age is so old by both: a machine whose clock is days ahead would drop what others keep.
        If none ran yesterday, it stood still, or both clocks are wrong: then nothing is removed
        before tomorrow.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        if by_server is not None and abs(today - by_server) > MOST_APART:
            logger.warning(
                "it is %s by the clock of this machine, and %s by PostgreSQL's: nothing is "
                "removed before it is too old by both; set them, for example with NTP",
                today, by_server,
            )  # fmt: skip
        agreed = min(today, by_server or today)
        first_retained = agreed - timedelta(days=self._retention_days)
        async with self._engine.begin() as connection:
            await connection.execute(WRITERS_LOCK)
            stood_still = not _ran_lately(await partition_days(connection), agreed)
            ahead = (*range(DAYS_AHEAD_AT_FIRST + 1), MARKED_DAY) if stood_still else _AHEAD
            days = {today, *(agreed + timedelta(days=n) for n in ahead)}
            await make_partitions(connection, sorted(days))
            present = await partition_days(connection)
            if agreed not in present:
                # The operator makes them, and how far ahead says nothing.
                stood_still = not await has_partition(connection, first_retained, agreed)
        due = [day for day in present if self._retention_days and day < first_retained]
        if stood_still:
            if due:
                logger.warning(
                    "no prediction is dropped before tomorrow, because no service ran on the day "
                    "before today, %s, and those of %s are older than LOG_RETENTION_DAYS: check "
                    "the clock",
                    agreed,
                    max(due),
                )
            return []
        await self._expire(agreed)
        return [day for day in due if await self._drop(day)]

    async def _expire(self, today: date) -> None:
        """Remove expired texts, tombstones and admin actions."""
        if self._text_days:
            await self._texts.remove(today - timedelta(days=self._text_days))
        async with self._engine.begin() as connection:
            if self._retention_days:
                await forget_tombstones(
                    connection, begin_of_day(today, days_ago=self._retention_days)
                )
            if self._admin_log_days:
                before = begin_of_day(today, days_ago=max(self._admin_log_days, MIN_ADMIN_LOG_DAYS))
                await connection.execute(
                    delete(admin_actions).where(admin_actions.c.created_at < before)
                )

    async def _drop(self, day: date) -> bool:
        await delete_rows_of_day(self._engine, day)
        # Each day has a transaction of its own, so that a writer waits for one day at most.
        async with self._engine.begin() as connection:
            await connection.execute(DROP_PARTITIONS)
            await connection.execute(WRITERS_LOCK)
            return await drop_day(connection, day)

    async def _run(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    by_server = (await server_now(connection)).date()
                dropped = await self.run(datetime.now(UTC).date(), by_server)
            except DATABASE_FAILURES as error:
                metrics.background_failures.labels(type(self).__name__).inc()
                # A right does not come by itself.
                seconds = HOUR_SECONDS if is_missing_right(error) else RETRY_SECONDS
                logger.warning(
                    "partition maintenance failed and is tried again in %.0f s: %s",
                    seconds,
                    describe_failure(error),
                )
                await asyncio.sleep(seconds)
            else:
                if dropped:
                    logger.info("dropped the log of %s", ", ".join(map(str, dropped)))
                await asyncio.sleep(HOUR_SECONDS)
