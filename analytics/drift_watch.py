"""Exports to Prometheus how far the last hour has drifted from the week before it."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import UTC, datetime, timedelta

from analytics.drift import DriftOfTraffic, drift
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core import metrics
from core.errors import DatabaseUnavailable
from core.types import VERSIONS, Version

logger = logging.getLogger("bentoml.sentiment.drift")

CURRENT = timedelta(hours=1)
REFERENCE = timedelta(days=7)
POLL_SECONDS = 300.0


async def watch_drift(reader: Reader) -> None:
    """Measure every five minutes; of several processes, the newest measurement counts."""
    while True:
        try:
            await measure(reader, datetime.now(UTC))
        except DatabaseUnavailable as error:
            logger.warning("drift was not measured: %s", error)
        await asyncio.sleep(POLL_SECONDS)


async def measure(reader: Reader, now: datetime) -> None:
    """Raises `DatabaseUnavailable`."""
    since = now - CURRENT
    for version in VERSIONS:
        scope = Scope(TimeRange(since, now), version)
        _export(version, await drift(reader, scope, TimeRange(since - REFERENCE, since)))


def _export(version: Version, report: DriftOfTraffic) -> None:
    for name in ("sentiment", "confidence", "text_characters", "token_count"):
        feature = getattr(report, name)
        is_known = feature.verdict != "too_few"
        metrics.drift_psi.labels(version, name).set(feature.psi if is_known else math.nan)
        noise = feature.psi_noise if is_known else math.nan
        metrics.drift_psi_noise.labels(version, name).set(noise)
    content = report.content
    is_known = content.verdict != "too_few"
    for metric, value in (
        (metrics.drift_psi, content.distance),
        (metrics.drift_psi_noise, content.noise),
    ):
        metric.labels(version, "content").set(value if is_known and value is not None else math.nan)
