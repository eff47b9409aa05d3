"""The one loop of every sink: its batches, its retries, its bound and its metrics."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.sinks.cursor import Batch, Cursor
from analytics.log.sinks.outbox import Found, Outbox, Position
from analytics.log.sinks.rows import Row, StillOpen, count_committed, gone_among, read_rows
from core import metrics
from core.background import run_in_background
from core.postgres import DATABASE_FAILURES, describe_failure
from core.types import SinkName

logger = logging.getLogger("bentoml.sentiment.log")

POLL_SECONDS = 0.25
WATCH_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 60.0
# A sink has the rows of a batch in memory several times.
MAX_BATCH_CHARACTERS = 4 << 20
# What is sent so long after it was read may be erased by then.
FRESH_SECONDS = 1.0
# A sink may ask for a longer pause, up to this.
MAX_RETRY_AFTER_SECONDS = 3_600.0
# With the longest pause between retries, a log line in about ten minutes.
LOG_EVERY_FAILURES = 10


class SinkUnavailable(Exception):
    """The sink takes nothing now; the message has no secret. The same batch is tried again."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SinkRefuses(SinkUnavailable):
    """The sink takes none of these predictions, as it is configured: a person has to look."""


class Delivered(NamedTuple):
    """The result of a delivery: what the sink has taken, will never take, and need not any more."""

    taken: int
    refused: int = 0
    gone: int = 0


# Which of some ids were erased since the rows of the batch were read; asked before each request.
GoneAmong = Callable[[Iterable[str]], Awaitable[set[str]]]


class Sink(Protocol):
    name: SinkName
    # The most predictions of a batch, and how long they may wait for it to be full.
    batch_predictions: int
    batch_seconds: float
    # Whether a repeated batch has to have the same predictions, so that it replaces the first.
    keeps_batches: bool

    async def deliver(self, name: str, rows: Sequence[Row], gone_among: GoneAmong) -> Delivered:
        """Hand a batch on; a repeated delivery of a batch has the same name.

        Raises:
            SinkUnavailable: it has to be delivered again.
        """

    async def close(self) -> None: ...


class SinkDelivery:
    """Delivers what is in the outbox to one sink, for ever, and loses what is past its bound."""

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        engine: AsyncEngine,
        *,
        max_predictions: int,
        max_retry_seconds: float = MAX_RETRY_SECONDS,
    ) -> None:
        self.name = sink.name
        self.cursor = Cursor(outbox, sink.name)
        self.delivered = 0
        self.at_once = False  # a batch need not be full
        self._sink = sink
        self._outbox = outbox
        self._engine = engine
        self._max_predictions = max_predictions
        self._max_retry_seconds = max_retry_seconds
        self._failures = 0
        # Of those who move the cursor.
        self._lock = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """The predictions that the sink does not have; among them those of rolled back writes."""
        return max(0, self._outbox.number - self.cursor.needed.number)

    async def run(self, ending: asyncio.Event) -> None:
        """Deliver until `ending` is set; then deliver what waits, until the sink refuses it."""
        watching = run_in_background("SinkWatch", self._watch)
        try:
            while True:
                is_last = ending.is_set()
                pause = await self._try(at_once=is_last or self.at_once)
                if is_last and pause:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(ending.wait(), pause)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._sink.close()

    async def _try(self, *, at_once: bool) -> float:
        """Deliver a batch, if there is one; returns the pause before the next, in seconds."""
        try:
            if not await self._deliver_next(at_once=at_once):
                return POLL_SECONDS
        except StillOpen:
            return POLL_SECONDS
        except SinkUnavailable as error:
            reason = "refused" if isinstance(error, SinkRefuses) else "unavailable"
            metrics.sink_failures.labels(self.name, reason).inc()
            after = min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
            return max(after, self._failed(str(error), longest=reason == "refused"))
        except DATABASE_FAILURES as error:
            return self._failed(describe_failure(error))
        if self._failures:
            logger.info("the sink %s takes predictions again", self.name)
        self._failures = 0
        return 0.0

    def _failed(self, reason: str, *, longest: bool = False) -> float:
        if self._failures % LOG_EVERY_FAILURES == 0:
            logger.error(
                "the sink %s has not taken predictions, %d wait: %s",
                self.name,
                self.waiting,
                reason,
            )
        most = self._max_retry_seconds
        pause = most if longest else min(FIRST_RETRY_SECONDS * 2 ** min(self._failures, 16), most)
        self._failures += 1
        return random.uniform(0.5, 1.0) * pause  # not all replicas come back at once

    async def _deliver_next(self, *, at_once: bool) -> bool:
        async with self._lock:
            batch, records = await self._next_batch(at_once=at_once)
            if batch is None:
                return False
            if not self._sink.keeps_batches:
                # The watch waits: what is on its way is not lost.
                await self._deliver(batch, records)
                await self._save(batch.end)
                return True
        # The batch is on disk, and the watch passes over it, however long this takes.
        await self._deliver(batch, records)
        async with self._lock:
            await self._save(self.cursor.next)
        return True

    async def _next_batch(self, *, at_once: bool) -> tuple[Batch | None, list[Found]]:
        batch, start = self.cursor.batch, self.cursor.next
        if batch is not None:
            read = self._outbox.read_until
            return batch, await asyncio.to_thread(read, batch.start, batch.end)
        most, waiting = self._sink.batch_predictions, self._outbox.number - start.number
        if waiting <= 0:
            return None, []
        # A record of the future was written before the clock was set back.
        if (
            waiting < most
            and not at_once
            and 0 <= await self._age(start) < self._sink.batch_seconds
        ):
            return None, []
        records = await asyncio.to_thread(self._outbox.read, start, most, MAX_BATCH_CHARACTERS)
        if not records:
            return None, []
        # Somebody has deleted files of the outbox, or the disk has damaged one.
        metrics.sink_lost.labels(self.name).inc(max(0, records[0].record.number - start.number))
        # From the record, not the cursor: of an outbox that was empty, the cursor names no file.
        batch = Batch(records[0].start, records[-1].end)
        if self._sink.keeps_batches:
            await self._save(batch.end, batch)
        return batch, records

    async def _deliver(self, batch: Batch, records: Sequence[Found]) -> None:
        read_at = time.monotonic()
        rows, gone = await read_rows(self._engine, records)

        async def gone_since(ids: Iterable[str]) -> set[str]:
            if time.monotonic() - read_at < FRESH_SECONDS:
                return set()
            return await gone_among(self._engine, ids)

        result = Delivered(0)
        if rows:
            result = await self._sink.deliver(batch.name, rows, gone_since)
        metrics.sink_gone.labels(self.name).inc(gone + result.gone)
        metrics.sink_delivered.labels(self.name).inc(result.taken)
        metrics.sink_lost.labels(self.name).inc(result.refused)
        self.delivered += result.taken

    async def _save(self, next_: Position, batch: Batch | None = None) -> None:
        await asyncio.to_thread(self.cursor.save, next_, batch)

    async def _age(self, position: Position) -> float:
        """The age of the record at a position by this clock, in seconds; 0 if there is none."""
        oldest = await asyncio.to_thread(self._outbox.read, position, 1)
        if not oldest:
            return 0.0
        return (datetime.now(UTC) - oldest[0].record.at).total_seconds()

    async def _watch(self) -> None:
        """Keep the bound and the gauges for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with suppress(StillOpen, *DATABASE_FAILURES):
                await self._lose_past_bound()
            await self._set_gauges()

    async def _lose_past_bound(self) -> None:
        if self._excess() <= 0:
            return
        async with self._lock:
            records = await asyncio.to_thread(
                self._outbox.read, self.cursor.next, max(1, self._excess())
            )
            if not records or self._excess() <= 0:
                return
            lost = await count_committed(self._engine, records)
            await self._save(records[-1].end, self.cursor.batch)
        metrics.sink_lost.labels(self.name).inc(lost)
        logger.error(
            "%d predictions are lost to the sink %s: more than %d waited for it",
            lost,
            self.name,
            self._max_predictions,
        )

    def _excess(self) -> int:
        """How many predictions more wait than may; those that are on their way do not count."""
        return self._outbox.number - self.cursor.next.number - self._max_predictions

    async def _set_gauges(self) -> None:
        metrics.sink_waiting.labels(self.name).set(self.waiting)
        overdue = await self._age(self.cursor.needed) - self._sink.batch_seconds
        metrics.sink_overdue.labels(self.name).set(max(0.0, overdue))
