"""Records predictions: each is on local disk before its reply leaves."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from analytics.log.records import ComparisonRecord, Entry, TextStorage, encode, to_record
from analytics.log.seal import SpoolSeal
from analytics.log.spool import SpoolFull, WhenFull
from core import metrics, tracing
from core.background import Background, run_in_background
from core.errors import LogUnavailable, describe_error
from core.shared_rendering import SharedRendering
from core.types import Comparison, Endpoint, Failure, ModelVersion, Prediction
from core.uuid7 import new_id

logger = logging.getLogger("bentoml.sentiment.log")

T = TypeVar("T")

# How often the spool is checked: while it refuses lines, and while no request uses it.
REFUSING_CHECK_SECONDS = 0.2
IDLE_CHECK_SECONDS = 1.0
# A disk that does not answer for so long cannot be written to.
ANSWER_SECONDS = 5.0
# The least room in which the spool counts as writable: a batch of long texts is larger.
CHECK_BYTES = 4_096
# The failures of so long are one row.
FAILURES_SECONDS = 0.5


class LineSpool(Protocol):
    async def append(self, line: bytes) -> None: ...

    async def check(self, needed_bytes: int, *, sync: bool) -> None: ...


class PredictionLog(Background):
    """Records predictions into a spool, from which the shipper stores them in PostgreSQL.

    A background task checks whether the spool can be written, so that the service knows it before
    a request finds out.
    """

    def __init__(
        self,
        spool: LineSpool,
        seal: SpoolSeal,
        *,
        text_storage: TextStorage,
        when_full: WhenFull,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """With `when_full` "refuse", `record` raises once the spool refuses lines.

        A disk that does not answer for `answer_seconds` counts as one that refuses.
        """
        self._spool = spool
        self._seal = seal
        self._text_storage: TextStorage = text_storage
        self._when_full: WhenFull = when_full
        self._failures: Counter[tuple[ModelVersion, Endpoint, int | None]] = Counter()
        self._writing_failures: asyncio.Task[None] | None = None
        self._failures_turn = asyncio.Lock()
        self._outage = False
        self._answer_seconds = answer_seconds
        self._hangs = False
        # One at a time: a thread that waits for a hanging disk is not followed by others.
        self._checks = SharedRendering(self._check_spool)
        self._needed_bytes = CHECK_BYTES
        self._written_at = -math.inf

    @property
    def refusing(self) -> bool:
        """Whether the spool cannot be written, and `record` raises because of it."""
        return self._outage and self._when_full == "refuse"

    def check(self) -> None:
        """Raise LogUnavailable if the spool cannot be written."""
        if self.refusing:
            raise LogUnavailable("Predictions cannot be recorded now; try again")

    async def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None:
        """Return when the predictions are on disk.

        Raises:
            LogUnavailable: the spool refuses them, and `when_full` is "refuse".
        """
        seal = self._seal.current
        entry = Entry(
            seal.apply([to_record(prediction, self._text_storage) for prediction in predictions]),
            None if comparison is None else ComparisonRecord.of(comparison),
            trace_parent=tracing.trace_parent(tracing.current()),
            seal=seal.id,
        )
        try:
            await self._append(entry)
        except (OSError, SpoolFull) as error:
            if self._when_full == "refuse":
                raise LogUnavailable("Predictions cannot be recorded now; try again") from error
            metrics.log_dropped.inc(len(predictions))
        else:
            metrics.log_recorded.inc(len(predictions))

    def record_failure(
        self, model: ModelVersion, endpoint: Endpoint, texts: int, arm_group: int | None = None
    ) -> None:
        """Count texts that were not answered; they are recorded within half a second."""
        self._failures[model, endpoint, arm_group] += texts
        if self._writing_failures is None or self._writing_failures.done():
            self._writing_failures = run_in_background(
                "FailuresWriter", self._write_failures_soon, until_done=True
            )

    async def stop(self) -> None:
        """Record the failures that were counted."""
        await super().stop()
        if self._writing_failures is not None:
            async with self._failures_turn:  # what is being written counts
                self._writing_failures.cancel()
            await asyncio.gather(self._writing_failures, return_exceptions=True)
        await self._write_failures()

    async def _run(self) -> None:
        while True:
            await self._look_at_disk()
            await asyncio.sleep(REFUSING_CHECK_SECONDS if self._outage else IDLE_CHECK_SECONDS)

    async def _look_at_disk(self) -> None:
        try:
            error = await self._answered(self._checks.get())
        except TimeoutError as timeout:
            self._set_outage(timeout)
            return
        hung, self._hangs = self._hangs, False
        # Whether a spool that drops lines finds room for one, only a line tells.
        if self._when_full == "refuse" or (hung and error is None):
            self._set_outage(error)

    async def _check_spool(self) -> OSError | SpoolFull | None:
        """Why the spool cannot be written, or None."""
        try:
            await asyncio.to_thread(self._seal.keep)
            self._seal.check()
            is_written = time.monotonic() - self._written_at < IDLE_CHECK_SECONDS
            if self._outage or not is_written:
                needed_bytes = self._needed_bytes if self._when_full == "refuse" else 0
                await self._spool.check(needed_bytes, sync=self._outage)
        except (OSError, SpoolFull) as error:
            return error
        return None

    async def _answered(self, work: Awaitable[T]) -> T:
        """What the disk answers; raises TimeoutError if it does not."""
        try:
            async with asyncio.timeout(self._answer_seconds) as limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            self._hangs = True
            raise self._no_answer() from None

    def _no_answer(self) -> TimeoutError:
        return TimeoutError(f"the disk has not answered for {self._answer_seconds:g} s")

    async def _write_failures_soon(self) -> None:
        while self._failures:  # others may be counted while these are written
            await asyncio.sleep(FAILURES_SECONDS)
            await self._write_failures()

    async def _write_failures(self) -> None:
        async with self._failures_turn:
            now = datetime.now(UTC)
            failures = tuple(
                Failure(new_id(now), now, endpoint, model, texts, arm_group)
                for (model, endpoint, arm_group), texts in self._failures.items()
            )
            self._failures.clear()
            if failures:
                # Logged by `_append`; the clients were answered 503 anyway.
                with suppress(OSError, SpoolFull):
                    await self._append(Entry(failures=failures))

    async def _append(self, entry: Entry) -> None:
        line = encode(entry)
        try:
            self._seal.check()
            if self._hangs:
                raise self._no_answer()
            await self._answered(self._spool.append(line))
        except (OSError, SpoolFull) as error:
            self._needed_bytes = max(CHECK_BYTES, len(line))
            self._set_outage(error)
            raise
        self._written_at, self._hangs = time.monotonic(), False
        self._set_outage(None)

    def _set_outage(self, error: Exception | None) -> None:
        """Note whether the spool can be written, and log a change."""
        if error is not None and not self._outage:
            logger.warning(
                "the spool refuses predictions (LOG_WHEN_FULL=%s): %s",
                self._when_full,
                describe_error(error),
            )
        elif error is None and self._outage:
            logger.info("the spool accepts predictions again")
            self._needed_bytes = CHECK_BYTES
        self._outage = error is not None
