"""Moves what is spooled to PostgreSQL, each prediction once, whatever dies in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_not_exception_type
from tenacity.wait import wait_exponential_jitter

from analytics.log.records import ComparisonRecord, Entry, PredictionRecord, encode
from analytics.log.segments import Chunk, SpoolReader, begun_at, segments, size_bytes
from core import metrics, tracing
from core.postgres import REFUSALS
from core.types import Failure

logger = logging.getLogger("bentoml.sentiment.log")

# Of a backlog; each batch updates the same rollups, so many rows share that.
MAX_BATCH_PREDICTIONS = 20_000
MAX_RETRY_SECONDS = 5.0
GAUGE_SECONDS = 1.0
REJECTED = "rejected.jsonl"
MAX_LINKS = 128
MAX_REJECTED_BYTES = 64 << 20


class Writer(Protocol):
    async def write(
        self,
        predictions: Sequence[PredictionRecord],
        comparisons: Sequence[ComparisonRecord],
        failures: Sequence[Failure],
    ) -> None: ...


class Shipper:
    """Reads the segments of a folder, writes them, and deletes what is written and complete.

    A crash after the write and before the deletion writes again what the writer then skips.
    """

    def __init__(self, folder: Path, writer: Writer, *, poll_seconds: float) -> None:
        self._folder = folder
        self._reader = SpoolReader(folder)
        self._writer = writer
        self._poll_seconds = poll_seconds
        self._gauged = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Ship until `stopping` is set and nothing is left, however long PostgreSQL is away."""
        reading: asyncio.Task[Chunk] | None = None
        try:
            while True:
                last = stopping.is_set()
                chunk = await (reading or self._read())
                # The next is read while PostgreSQL works.
                reading = asyncio.create_task(self._read()) if chunk.entries else None
                self._gauge()
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
            if reading is not None:
                reading.cancel()

    async def _read(self) -> Chunk:
        return await asyncio.to_thread(self._reader.read, MAX_BATCH_PREDICTIONS)

    async def _wait(self, stopping: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._poll_seconds):
                await stopping.wait()
        except TimeoutError:
            pass

    async def _ship(self, entries: Sequence[Entry]) -> None:
        """Write all that PostgreSQL does not refuse; the rest is set aside."""
        try:
            await self._write_until_taken(entries)
        except REFUSALS as error:
            if len(entries) == 1:
                self._reject(encode(entries[0]).rstrip(), repr(error))
            else:
                half = len(entries) // 2
                await self._ship(entries[:half])
                await self._ship(entries[half:])

    async def _write_until_taken(self, entries: Sequence[Entry]) -> None:
        """Try until PostgreSQL takes them. Raises what it refuses them with (`REFUSALS`)."""
        predictions = [each for entry in entries for each in entry.predictions]
        comparisons = [entry.comparison for entry in entries if entry.comparison is not None]
        failures = [each for entry in entries for each in entry.failures]
        traces = [entry.trace_parent for entry in entries if entry.trace_parent is not None]
        # Whatever it is: to set aside what is only in the way of a fault of ours would lose it.
        async for attempt in AsyncRetrying(
            retry=retry_if_not_exception_type(REFUSALS),
            wait=wait_exponential_jitter(multiplier=0.1, max=MAX_RETRY_SECONDS),
            before_sleep=_tell,
            reraise=True,
        ):
            with attempt, _span(traces, len(predictions)):
                await self._writer.write(predictions, comparisons, failures)
                if attempt.retry_state.attempt_number > 1:
                    logger.info("PostgreSQL takes predictions again")
        metrics.log_stored.inc(len(predictions))

    def _reject(self, line: bytes, reason: str) -> None:
        """Set aside for a human what cannot be stored, unless too much lies there already."""
        metrics.log_rejected.inc()
        path = self._folder / REJECTED
        with path.open("ab") as file:
            kept = file.tell() + len(line) <= MAX_REJECTED_BYTES
            if kept:
                about = {"at": datetime.now(UTC), "reason": reason, "line": line.decode("latin-1")}
                file.write(orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE))
        logger.error(
            "a line of the log cannot be stored (%s): %s",
            reason,
            f"it is in {path}" if kept else f"and {path} is full, so it is lost",
        )

    def _gauge(self) -> None:
        now = time.monotonic()
        if now >= self._gauged + GAUGE_SECONDS:
            self._gauged = now
            waiting = segments(self._folder)
            metrics.log_spool_bytes.set(size_bytes(waiting))
            age = datetime.now(UTC) - begun_at(waiting[0]) if waiting else timedelta()
            metrics.log_spool_age.set(max(0.0, age.total_seconds()))


def _span(traces: Sequence[str], predictions: int) -> AbstractContextManager[object]:
    """Linked to the requests that it is for; of a large batch, to the last of them."""
    if not traces or not tracing.is_on():
        return nullcontext()
    links = [tracing.parse_trace_parent(each) for each in dict.fromkeys(traces[-MAX_LINKS:])]
    return tracing.span("log.ship", {"predictions": predictions}, links=links)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    # At first, and then about once a minute.
    if state.attempt_number == 1 or state.attempt_number % 15 == 0:
        logger.error("PostgreSQL does not take predictions, the spool keeps them: %r", error)
