"""Ships the spool to PostgreSQL, each prediction once, even if a process is killed in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_not_exception_type
from tenacity.wait import wait_exponential_jitter

from analytics.log.records import ComparisonRecord, Entry, encode
from analytics.log.segments import Chunk, SpoolReader, begun_at, segments, size_bytes
from core import metrics, tracing
from core.postgres import REFUSALS, describe_failure
from core.types import Failure, Prediction

logger = logging.getLogger("bentoml.sentiment.log")

# The predictions of one transaction: they share the updates of the same rollups.
MAX_BATCH_PREDICTIONS = 20_000
MAX_RETRY_SECONDS = 5.0
# With the longest pause between retries, about one log line a minute.
LOG_EVERY_ATTEMPTS = 15
GAUGE_SECONDS = 1.0
REJECTED = "rejected.jsonl"
MAX_REJECTED_BYTES = 64 << 20
MAX_LINKS = 128


class Writer(Protocol):
    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord],
        failures: Sequence[Failure],
    ) -> None: ...


class Shipper:
    """Reads the segments of a folder, writes their entries, and deletes what is written.

    After a crash between the write and the deletion, entries are written again; the writer skips
    those that it knows.
    """

    def __init__(self, folder: Path, writer: Writer, *, poll_seconds: float) -> None:
        self._folder = folder
        self._reader = SpoolReader(folder)
        self._writer = writer
        self._poll_seconds = poll_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Ship until `stopping` is set and the spool is empty, however long PostgreSQL is away."""
        reading: asyncio.Task[Chunk] | None = None
        gauges = asyncio.create_task(self._keep_gauges())
        try:
            while True:
                last = stopping.is_set()
                chunk = await (reading or self._read())
                # The next chunk is read while PostgreSQL works.
                reading = asyncio.create_task(self._read()) if chunk.entries else None
                for line in chunk.unreadable:
                    self._reject(line, "not a line of the log")
                if chunk.entries:
                    await self._ship(chunk.entries)
                self._reader.confirm(chunk)
                if reading is None and last:
                    return
                if reading is None:
                    await self._wait(stopping)
        finally:
            gauges.cancel()
            self._set_gauges()
            if reading is not None:
                reading.cancel()

    async def _read(self) -> Chunk:
        return await asyncio.to_thread(self._reader.read, MAX_BATCH_PREDICTIONS)

    async def _wait(self, stopping: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), self._poll_seconds)

    async def _ship(self, entries: Sequence[Entry]) -> None:
        """Write the entries; halve a batch that PostgreSQL refuses, and set its bad lines aside."""
        try:
            await self._write(entries)
        except REFUSALS as error:
            if len(entries) == 1:
                self._reject(encode(entries[0]).rstrip(), describe_failure(error))
            else:
                half = len(entries) // 2
                await self._ship(entries[:half])
                await self._ship(entries[half:])

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Retry until PostgreSQL has stored the entries. Raises `REFUSALS`."""
        predictions = [prediction for entry in entries for prediction in entry.predictions]
        comparisons = [entry.comparison for entry in entries if entry.comparison is not None]
        failures = [failure for entry in entries for failure in entry.failures]
        traces = [entry.trace_parent for entry in entries if entry.trace_parent is not None]
        # Every other error is retried: a fault of our own code must not lose predictions.
        async for attempt in AsyncRetrying(
            retry=retry_if_not_exception_type(REFUSALS),
            wait=wait_exponential_jitter(multiplier=0.1, max=MAX_RETRY_SECONDS),
            before_sleep=_log_retry,
            reraise=True,
        ):
            with attempt, _span(traces, len(predictions)):
                await self._writer.write(predictions, comparisons, failures)
                if attempt.retry_state.attempt_number > 1:
                    logger.info("PostgreSQL stores predictions again")
        metrics.log_stored.inc(len(predictions))

    def _reject(self, line: bytes, reason: str) -> None:
        """Append a line that cannot be stored to a file for the operator, up to a limit."""
        metrics.log_rejected.inc()
        path = self._folder / REJECTED
        with path.open("ab") as file:
            if file.tell() + len(line) > MAX_REJECTED_BYTES:
                logger.error("a line of the log cannot be stored and is lost: %s is full", path)
                return
            rejected = {
                "at": datetime.now(UTC), "reason": reason, "line": line.decode("latin-1"),
            }  # fmt: skip
            file.write(orjson.dumps(rejected, option=orjson.OPT_APPEND_NEWLINE))
        logger.error("a line of the log cannot be stored; it is in %s with the reason", path)

    def _set_gauges(self) -> None:
        waiting = segments(self._folder)
        metrics.log_spool_bytes.set(size_bytes(waiting))
        age = datetime.now(UTC) - begun_at(waiting[0]) if waiting else timedelta()
        metrics.log_spool_age.set(max(0.0, age.total_seconds()))

    async def _keep_gauges(self) -> None:
        """Set the spool's gauges for ever, also while a batch waits for PostgreSQL."""
        while True:
            self._set_gauges()
            await asyncio.sleep(GAUGE_SECONDS)


def _span(traces: Sequence[str], predictions: int) -> AbstractContextManager[object]:
    """A span that links to the batch's traced requests, at most to the last `MAX_LINKS`."""
    if not traces or not tracing.is_on():
        return nullcontext()
    links = [tracing.parse_trace_parent(trace) for trace in dict.fromkeys(traces[-MAX_LINKS:])]
    return tracing.span("log.ship", {"predictions": predictions}, links=links)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if error and (state.attempt_number == 1 or state.attempt_number % LOG_EVERY_ATTEMPTS == 0):
        logger.error(
            "PostgreSQL stores no predictions, the spool keeps them: %s", describe_failure(error)
        )
