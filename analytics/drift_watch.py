"""Tells Prometheus how far the traffic of the last hour is from that of the week before it."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import UTC, datetime, timedelta

from analytics.drift import DriftOfTraffic, drift
from analytics.reader import Reader
from analytics.sql_fragment import Scope
from analytics.time_range import TimeRange
from core import metrics
from core.errors import DatabaseUnavailable
from core.types import VERSIONS, Version

logger = logging.getLogger("bentoml.sentiment.drift")

CURRENT = timedelta(hours=1)
REFERENCE = timedelta(days=7)
POLL_SECONDS = 300.0


class DriftWatch:
    """Looks every five minutes; where several do, the newest of what they tell counts."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_looking(), name="drift-watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self, now: datetime) -> None:
        """Raises `DatabaseUnavailable`."""
        since = now - CURRENT
        for version in VERSIONS:
            scope = Scope(TimeRange(since, now), version)
            _tell(version, await drift(self._reader, scope, TimeRange(since - REFERENCE, since)))

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look(datetime.now(UTC))
            except DatabaseUnavailable as error:
                logger.warning("drift is not known now: %r", error)
            await asyncio.sleep(POLL_SECONDS)


def _tell(version: Version, report: DriftOfTraffic) -> None:
    for name in ("sentiment", "confidence", "text_characters", "token_count"):
        of_feature = getattr(report, name)
        told = of_feature.verdict != "too_few"
        metrics.drift_psi.labels(version, name).set(of_feature.psi if told else math.nan)
        noise = of_feature.psi_noise if told else math.nan
        metrics.drift_psi_noise.labels(version, name).set(noise)
