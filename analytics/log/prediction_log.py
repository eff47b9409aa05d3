"""Records predictions: each is on local disk before its reply leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from analytics.log.records import ComparisonRecord, Entry, TextStorage, encode, to_record
from analytics.log.spool import SpoolFull, WhenFull
from core import metrics, tracing
from core.errors import LogUnavailable, describe_error
from core.types import Comparison, Endpoint, Failure, ModelVersion, Prediction
from core.uuid7 import new_id

logger = logging.getLogger("bentoml.sentiment.log")

# After the spool has refused a line, requests are refused for so long before a model runs for them.
REFUSE_SECONDS = 0.2
# The failures of so long are one row.
FAILURES_SECONDS = 0.5


class LineSpool(Protocol):
    async def append(self, line: bytes) -> None: ...


class PredictionLog:
    """Records predictions into a spool, from which the shipper stores them in PostgreSQL."""

    def __init__(self, spool: LineSpool, *, text_storage: TextStorage, when_full: WhenFull) -> None:
        """With `when_full` "refuse", `record` raises once the spool refuses lines."""
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
        """Raise LogUnavailable if the spool has just refused a line."""
        if self.refusing:
            raise LogUnavailable("Predictions cannot be recorded now; try again")

    async def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None:
        """Return when the predictions are on disk.

        Raises:
            LogUnavailable: the spool refuses them, and `when_full` is "refuse".
        """
        entry = Entry(
            tuple(to_record(prediction, self._text_storage) for prediction in predictions),
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
        """Count texts that were not answered; they are recorded within half a second."""
        self._failures[model, endpoint] += texts
        if self._writing_failures is None or self._writing_failures.done():
            self._writing_failures = asyncio.create_task(self._write_failures_soon())

    async def stop(self) -> None:
        """Record the failures that were counted."""
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
                return  # logged by `_append`; the clients were answered 503 anyway

    async def _append(self, entry: Entry) -> None:
        try:
            await self._spool.append(encode(entry))
        except (OSError, SpoolFull) as error:
            if not self._outage:
                logger.warning(
                    "the spool refuses predictions (LOG_WHEN_FULL=%s): %s",
                    self._when_full,
                    describe_error(error),
                )
            self._outage = True
            raise
        if self._outage:
            logger.info("the spool accepts predictions again")
        self._outage = False
