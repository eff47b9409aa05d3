"""Ships the spool to PostgreSQL, each prediction once, even if a process is killed in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_not_exception_type
from tenacity.wait import wait_exponential_jitter

from analytics.log.batch_size import FAST_SECONDS, BatchSize
from analytics.log.records import ComparisonRecord, Entry, encode, parts
from analytics.log.rejected import REJECTED, rejected_bytes, set_aside
from analytics.log.seal import FILE as SEAL_FILE
from analytics.log.seal import Seals
from analytics.log.segments import (
    OVERDUE_SECONDS,
    Chunk,
    SpoolReader,
    oldest_seconds,
    segments,
    size_bytes,
)
from analytics.log.unshipped import Unshipped, spool_id
from core import metrics, tracing
from core.background import run_in_background
from core.errors import describe_error
from core.postgres import describe_failure, is_time_out, is_value_failure
from core.types import Failure, Prediction

logger = logging.getLogger("bentoml.sentiment.log")

# The predictions of one transaction: they share the updates of the same rollups.
MAX_BATCH_PREDICTIONS = 20_000
# Before it is known how fast PostgreSQL takes them.
FIRST_BATCH_PREDICTIONS = 100
# Texts that are stored whole take more memory than their lines, and two batches are in memory.
MAX_BATCH_BYTES = 16 << 20
MAX_RETRY_SECONDS = 5.0
# With the longest pause between retries, about one log line a minute.
LOG_EVERY_ATTEMPTS = 15
GAUGE_SECONDS = 1.0
MAX_LINKS = 128
# A process that writes lines puts a key that is gone back within a second.
SEAL_SECONDS = 2.0
SEAL_POLL_SECONDS = 0.1


class Writer(Protocol):
    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord],
        failures: Sequence[Failure],
    ) -> int:
        """Write the batch, and return how many of its predictions were not stored before."""

    async def check(self) -> None:
        """Raise unless PostgreSQL would store a prediction without fault."""


class _Refused(Exception):
    """A value in the batch is at fault: PostgreSQL stores other predictions."""


class _NotInTime(Exception):
    """PostgreSQL does not store the batch in the time that a statement has; smaller ones follow."""


class Shipper:
    """Reads the segments of a folder, writes their entries, and deletes what is written.

    After a crash between the write and the deletion, entries are written again; the writer skips
    those that it knows.
    """

    def __init__(self, folder: Path, writer: Writer, *, poll_seconds: float) -> None:
        """There is one transaction each `poll_seconds`, and none after the other but for a backlog.

        A transaction costs far more than a prediction in it.
        """
        self._folder = folder
        self._writer = writer
        self._poll_seconds = poll_seconds
        self._unshipped = Unshipped(folder)
        self._seals = Seals(folder)
        self._missing_seals: set[str | None] = set()
        self._spool_id: str | None = None
        self._size = BatchSize(MAX_BATCH_PREDICTIONS, FIRST_BATCH_PREDICTIONS)

    async def run(self, stopping: asyncio.Event) -> None:
        """Ship until `stopping` is set and the spool is empty, however long PostgreSQL is away."""
        # A new one, because lines that a failed run has read are to be read again.
        reader = SpoolReader(self._folder)
        reading: asyncio.Task[Chunk] | None = None
        gauges = run_in_background("SpoolGauges", self._keep_gauges)
        try:
            while True:
                last = stopping.is_set()
                chunk = await (reading or _read(reader))
                # The next chunk of a backlog is read while PostgreSQL works.
                reading = asyncio.create_task(_read(reader)) if chunk.is_full else None
                for line in chunk.unreadable:
                    await self._reject(line, "not a line of the log")
                for batch in self._batches(await self._openable(chunk.entries)):
                    await self._ship(batch)
                reader.confirm(chunk)
                if last and not chunk.entries:
                    return
                if not chunk.is_full:
                    await self._wait(stopping)
        finally:
            gauges.cancel()
            self._set_gauges()
            if reading is not None:
                reading.cancel()

    async def _wait(self, stopping: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), self._poll_seconds)

    async def _openable(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose hashes can be read; sets the others aside, unless their key comes."""
        openable: list[Entry] = []
        for entry in entries:
            if self._seals.can_open(entry) or await self._key_comes(entry):
                openable.append(entry)
            else:
                await self._reject(
                    encode(entry).rstrip(), f"{SEAL_FILE} beside the spool has not its key"
                )
        return openable

    async def _key_comes(self, entry: Entry) -> bool:
        """Wait for the key of an entry, once for all entries that have it."""
        if entry.seal in self._missing_seals:
            return False
        for _ in range(round(SEAL_SECONDS / SEAL_POLL_SECONDS)):
            await asyncio.sleep(SEAL_POLL_SECONDS)
            if self._seals.can_open(entry):
                return True
        self._missing_seals.add(entry.seal)
        return False

    def _batches(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """The entries in batches of the size that PostgreSQL takes when each of them is begun."""
        batch: list[Entry] = []
        predictions = 0
        for entry in entries:
            batch.append(entry)
            predictions += len(entry.predictions)
            if predictions >= self._size.predictions:
                yield batch
                batch, predictions = [], 0
        if batch:
            yield batch

    async def _ship(self, entries: Sequence[Entry], *, again: bool = False) -> None:
        """Write the entries; halve a batch that is refused or late, and set its bad lines aside.

        A line is set aside if it is refused twice while PostgreSQL stores other predictions.
        """
        try:
            await self._write(entries)
        except (_Refused, _NotInTime) as refusal:
            smaller = _halves(entries)
            if smaller:
                for half in smaller:
                    await self._ship(half)
            elif not again:
                await self._ship(entries, again=True)
            else:
                await self._reject(encode(entries[0]).rstrip(), str(refusal))

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Retry until PostgreSQL has stored the entries. Raises `_Refused`."""
        predictions = [prediction for entry in entries for prediction in self._seals.open(entry)]
        comparisons = [entry.comparison for entry in entries if entry.comparison is not None]
        failures = [failure for entry in entries for failure in entry.failures]
        traces = [entry.trace_parent for entry in entries if entry.trace_parent is not None]
        # Every other error is retried: a fault of our own code must not lose predictions.
        async for attempt in _retrying(_log_outage, _Refused, _NotInTime):
            with attempt, _span(traces, len(predictions)):
                began = time.monotonic()
                try:
                    stored = await self._writer.write(predictions, comparisons, failures)
                except Exception as error:
                    is_late = is_time_out(error) or time.monotonic() - began > FAST_SECONDS
                    if is_late and _halves(entries):
                        self._size.not_in_time(len(predictions))
                        _log_late(error, len(predictions))
                        raise _NotInTime from error
                    if not is_value_failure(error):
                        raise
                    await self._writer.check()  # if it fails too, no line is at fault
                    raise _Refused(describe_failure(error)) from error
                self._size.taken(len(predictions), time.monotonic() - began)
                if attempt.retry_state.attempt_number > 1:
                    logger.info("PostgreSQL stores predictions again")
        # Of lines that a killed shipper has stored already, none counts again as stored.
        metrics.log_stored.inc(stored)
        metrics.log_repeated.inc(len(predictions) - stored)

    async def _reject(self, line: bytes, reason: str) -> None:
        """Set a line aside for the operator, however long the disk refuses it."""
        async for attempt in _retrying(_log_disk_failure):
            with attempt:
                await asyncio.to_thread(set_aside, self._folder, line, reason)
        metrics.log_rejected.inc()
        logger.error("a line of the log is set aside in %s: %s", self._folder / REJECTED, reason)

    def _set_gauges(self) -> None:
        waiting = segments(self._folder)
        metrics.log_spool_bytes.set(size_bytes(waiting))
        metrics.log_rejected_bytes.set(rejected_bytes(self._folder))
        age_seconds = oldest_seconds(waiting)
        metrics.log_spool_age.set(age_seconds)
        if self._spool_id is None:
            self._spool_id = spool_id(self._folder)
        overdue = self._unshipped.count() if age_seconds > OVERDUE_SECONDS else 0
        metrics.log_overdue.labels(self._spool_id).set(overdue)

    async def _keep_gauges(self) -> None:
        """Set the spool's gauges for ever, also while a batch waits for PostgreSQL."""
        while True:
            # In a thread: the predictions of a long outage take seconds to count.
            await asyncio.to_thread(self._set_gauges)
            await asyncio.sleep(GAUGE_SECONDS)


def _halves(entries: Sequence[Entry]) -> tuple[Sequence[Entry], ...]:
    """Two parts that can be stored without each other; empty if there are none."""
    if len(entries) == 1:
        entries = parts(entries[0])
    half = len(entries) // 2
    return (entries[:half], entries[half:]) if half else ()


async def _read(reader: SpoolReader) -> Chunk:
    return await asyncio.to_thread(reader.read, MAX_BATCH_PREDICTIONS, MAX_BATCH_BYTES)


def _span(traces: Sequence[str], predictions: int) -> AbstractContextManager[object]:
    """A span that links to the batch's traced requests, at most to the last `MAX_LINKS`."""
    if not traces or not tracing.is_on():
        return nullcontext()
    links = [tracing.parse_trace_parent(trace) for trace in dict.fromkeys(traces[-MAX_LINKS:])]
    return tracing.span("log.ship", {"predictions": predictions}, links=links)


def _retrying(
    before_sleep: Callable[[RetryCallState], None], *but_not: type[Exception]
) -> AsyncRetrying:
    """Retry for ever, after every error except `but_not`."""
    return AsyncRetrying(
        retry=retry_if_not_exception_type((asyncio.CancelledError, *but_not)),
        wait=wait_exponential_jitter(multiplier=0.1, max=MAX_RETRY_SECONDS),
        before_sleep=before_sleep,
        reraise=True,
    )


def _log_outage(state: RetryCallState) -> None:
    _log_seldom(
        state, describe_failure, "PostgreSQL stores no predictions, the spool keeps them: %s"
    )


def _log_late(error: Exception, predictions: int) -> None:
    logger.error(
        "PostgreSQL has not stored %d predictions in time, smaller batches follow: %s",
        predictions,
        describe_failure(error),
    )


def _log_disk_failure(state: RetryCallState) -> None:
    _log_seldom(
        state, describe_error, "a line cannot be set aside, so the spool is not shipped: %s"
    )


def _log_seldom(
    state: RetryCallState, describe: Callable[[BaseException], str], message: str
) -> None:
    error = state.outcome.exception() if state.outcome else None
    if error and (state.attempt_number == 1 or state.attempt_number % LOG_EVERY_ATTEMPTS == 0):
        logger.error(message, describe(error))
