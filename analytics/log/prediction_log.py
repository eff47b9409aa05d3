"""The prediction log: what is recorded here is on local disk before its reply leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from analytics.log.records import (
    ComparisonRecord,
    Entry,
    PredictionRecord,
    TextStorage,
    encode,
)
from analytics.log.spool import SpoolFull, WhenFull
from core import metrics, tracing
from core.errors import LogUnavailable
from core.types import Comparison, Endpoint, Failure, ModelVersion, Prediction
from core.uuid7 import new_id

logger = logging.getLogger("bentoml.sentiment.log")

# After a refusal, requests are refused before anything is computed for them; then one tries again.
REFUSE_SECONDS = 0.2
FAILURES_SECONDS = 0.5


class Lines(Protocol):
    async def append(self, line: bytes) -> None: ...


class PredictionLog:
    """Records predictions into a spool, from where a shipper brings them to PostgreSQL."""

    def __init__(self, spool: Lines, *, text_storage: TextStorage, when_full: WhenFull) -> None:
        """`when_full` says what becomes of requests when the spool takes nothing more."""
        self._spool = spool
        self._text_storage: TextStorage = text_storage
        self._when_full: WhenFull = when_full
        self._failures: Counter[tuple[ModelVersion, Endpoint]] = Counter()
        self._writing_failures: asyncio.Task[None] | None = None
        self._refusing_until = 0.0
        self._outage = False

    @property
    def refusing(self) -> bool:
        return time.monotonic() < self._refusing_until

    def check(self) -> None:
        """Raises LogUnavailable: `record` would, as things stand."""
        if self.refusing:
            raise LogUnavailable("Predictions cannot be recorded now; try again")

    async def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None:
        """Return when they are on disk.

        Raises:
            LogUnavailable: they cannot be, and are to be refused rather than lost.
        """
        entry = Entry(
            tuple(PredictionRecord.of(each, self._text_storage) for each in predictions),
            None if comparison is None else ComparisonRecord.of(comparison),
            trace_parent=tracing.trace_parent(tracing.current()),
        )
        try:
            await self._append(entry)
        except (OSError, SpoolFull) as error:
            if self._when_full == "refuse":
                self._refusing_until = time.monotonic() + REFUSE_SECONDS
                raise LogUnavailable("Predictions cannot be recorded now; try again") from error
            metrics.log_dropped.inc(len(predictions))
        else:
            metrics.log_recorded.inc(len(predictions))

    def record_failure(self, model: ModelVersion, endpoint: Endpoint, texts: int) -> None:
        """Count texts that were not answered; those of a moment are recorded as one."""
        self._failures[model, endpoint] += texts
        if self._writing_failures is None or self._writing_failures.done():
            self._writing_failures = asyncio.create_task(self._write_failures_soon())

    async def stop(self) -> None:
        """Record what has been counted."""
        if self._writing_failures is not None:
            self._writing_failures.cancel()
            await asyncio.gather(self._writing_failures, return_exceptions=True)
        await self._write_failures()

    async def _write_failures_soon(self) -> None:
        await asyncio.sleep(FAILURES_SECONDS)
        await self._write_failures()

    async def _write_failures(self) -> None:
        now = datetime.now(UTC)
        failures = tuple(
            Failure(new_id(now), now, endpoint, model, texts)
            for (model, endpoint), texts in self._failures.items()
        )
        self._failures.clear()
        if failures:
            try:
                await self._append(Entry(failures=failures))
            except (OSError, SpoolFull):
                return  # logged; they were answered 503 as it is

    async def _append(self, entry: Entry) -> None:
        try:
            await self._spool.append(encode(entry))
        except (OSError, SpoolFull) as error:
            if not self._outage:
                logger.warning("the spool takes no predictions (%s): %r", self._when_full, error)
            self._outage = True
            raise
        if self._outage:
            logger.info("the spool takes predictions again")
        self._outage = False
