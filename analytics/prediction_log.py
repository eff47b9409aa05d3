"""The prediction log: takes predictions off the request's path and hands them on in batches."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

import metrics
from analytics.database import DATABASE_FAILURES, REFUSALS
from ids import new_id
from values import Comparison, Endpoint, Failure, ModelVersion, Prediction

logger = logging.getLogger("bentoml.sentiment.log")

# Of a backlog; each batch updates the same rollups, so many rows share that.
MAX_BATCH_PREDICTIONS = 20_000
MAX_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What one request leaves: its predictions, and the comparison that links them if any."""

    predictions: tuple[Prediction, ...]
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written at once."""

    predictions: list[Prediction]
    comparisons: list[Comparison]
    failures: list[Failure]


class Writer(Protocol):
    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[Comparison],
        failures: Sequence[Failure],
    ) -> None: ...


class PredictionLog:
    """Holds entries in memory until the writer has them in PostgreSQL.

    At most `max_pending` predictions wait while PostgreSQL is down; past that the oldest entries
    are dropped and counted. A process that is killed loses what it holds.
    """

    def __init__(self, writer: Writer, *, flush_seconds: float, max_pending: int) -> None:
        self._writer = writer
        self._flush_seconds = flush_seconds
        self._max_pending = max_pending
        self._entries: deque[Entry] = deque()
        self._failures: Counter[tuple[ModelVersion, Endpoint]] = Counter()
        self._pending = 0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_writing(), name="prediction-log")

    def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None:
        """Take what one request leaves; never waits and never fails."""
        self._entries.append(Entry(tuple(predictions), comparison))
        self._pending += len(predictions)
        while self._pending > self._max_pending and len(self._entries) > 1:
            dropped = len(self._entries.popleft().predictions)
            self._pending -= dropped
            metrics.log_dropped.inc(dropped)
        metrics.log_pending.set(self._pending)
        self._awake()

    def record_failure(self, model: ModelVersion, endpoint: Endpoint, texts: int) -> None:
        """Count texts that were not answered; those of a moment are written as one row."""
        self._failures[model, endpoint] += texts
        self._awake()

    def _awake(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def flush(self, timeout_seconds: float) -> bool:
        """Write now what waits; `False` if PostgreSQL did not take it in time."""
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_seconds: float) -> None:
        """Write what waits, then stop; what PostgreSQL does not take in time is lost and logged."""
        if not await self.flush(timeout_seconds):
            logger.error("stopping with %d predictions not written", self._pending)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_writing(self) -> None:
        while True:
            await self._wake.wait()
            await self._gather_a_batch()
            batch = self._take_batch()
            count = len(batch.predictions)
            try:
                await self._write_until_taken(batch)
            except Exception:  # the edge of a background loop: one batch must not end it
                logger.exception("dropping %d predictions that cannot be stored", count)
                metrics.log_dropped.inc(count)
            self._pending -= count
            metrics.log_pending.set(self._pending)
            if not self._entries and not self._failures:
                self._wake.clear()
                self._hurry.clear()
                self._idle.set()

    async def _write_until_taken(self, batch: Batch) -> None:
        """Try until PostgreSQL takes the batch. Raises what no further attempt can mend."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_exponential_jitter(multiplier=0.1, max=MAX_RETRY_SECONDS),
            after=_log_failure,
            reraise=True,
        ):
            with attempt:
                await self._writer.write(batch.predictions, batch.comparisons, batch.failures)

    async def _gather_a_batch(self) -> None:
        """Wait a moment for company: one COPY of many rows costs hardly more than one of a few."""
        try:
            async with asyncio.timeout(self._flush_seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _take_batch(self) -> Batch:
        predictions: list[Prediction] = []
        comparisons: list[Comparison] = []
        while self._entries and len(predictions) < MAX_BATCH_PREDICTIONS:
            entry = self._entries.popleft()
            predictions.extend(entry.predictions)
            if entry.comparison is not None:
                comparisons.append(entry.comparison)
        now = datetime.now(UTC)
        failures = [
            Failure(new_id(now), now, endpoint, model, texts)
            for (model, endpoint), texts in self._failures.items()
        ]
        self._failures.clear()
        return Batch(predictions, comparisons, failures)


def _may_pass(error: BaseException) -> bool:
    """Whether a failed write is worth another attempt: not if PostgreSQL refuses the rows."""
    return isinstance(error, DATABASE_FAILURES) and not isinstance(error, REFUSALS)


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number == 1 and error is not None and _may_pass(error):
        logger.error("PostgreSQL does not take predictions, holding them: %r", error)
