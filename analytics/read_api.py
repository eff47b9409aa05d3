"""The GET endpoints under /analytics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from analytics.confidence import Confidence, confidence
from analytics.drift import DriftOfTraffic, drift
from analytics.facts import Scope
from analytics.latency import Latency, latency
from analytics.reader import Reader
from analytics.recent import RecentPredictions, recent
from analytics.summary import SentimentDistribution, Summary, sentiment_distribution, summary
from analytics.time_range import TimeRange, parse_range, reference_range
from analytics.timeseries import BucketName, Timeseries, choose_bucket, timeseries
from values import Version

_TIME_HELP = "ISO 8601 with an offset (2026-01-31T12:00:00Z), or relative to now (30m, 24h, 7d)"


def _span(
    since: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
    until: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
) -> TimeRange:
    return parse_range(since, until, datetime.now(UTC))


Span = Annotated[TimeRange, Depends(_span)]
VersionFilter = Annotated[Version | None, Query(description="v1 or v2; both if absent")]


def analytics_router(reader: Callable[[], Reader]) -> APIRouter:
    """The router. `reader` is asked at each request: the pool is made when serving starts."""
    router = APIRouter(prefix="/analytics", tags=["analytics"])

    @router.get("/summary")
    async def totals(span: Span, version: VersionFilter = None) -> Summary:
        """Totals and averages of the predictions in a time range (the last 24 hours)."""
        return await summary(reader(), Scope(span, version))

    @router.get("/sentiment-distribution")
    async def counts_by_sentiment(
        span: Span, version: VersionFilter = None
    ) -> SentimentDistribution:
        """How many predictions said what."""
        return await sentiment_distribution(reader(), Scope(span, version))

    @router.get("/recent")
    async def newest_predictions(
        span: Span,
        version: VersionFilter = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[
            UUID | None, Query(description="`next_before` of the page before; for the first, none")
        ] = None,
    ) -> RecentPredictions:
        """The newest predictions, without their texts, page by page."""
        return await recent(reader(), Scope(span, version), limit, before)

    @router.get("/timeseries")
    async def predictions_over_time(
        span: Span,
        version: VersionFilter = None,
        bucket: Annotated[
            BucketName | None,
            Query(description="by default, what gives some 180 points"),
        ] = None,
    ) -> Timeseries:
        """Counts, rates, shares and latency, bucket by bucket, for each version."""
        scope = Scope(span, version)
        return await timeseries(reader(), scope, choose_bucket(span, bucket))

    @router.get("/latency")
    async def latency_percentiles(span: Span, version: VersionFilter = None) -> Latency:
        """Percentiles of the time inside the service, apart for cached and computed answers."""
        return await latency(reader(), Scope(span, version))

    @router.get("/confidence")
    async def confidence_of_predictions(span: Span, version: VersionFilter = None) -> Confidence:
        """How sure the versions are: mean and histogram."""
        return await confidence(reader(), Scope(span, version))

    @router.get("/drift")
    async def drift_of_traffic(
        span: Span,
        version: VersionFilter = None,
        reference_since: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
        reference_until: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
    ) -> DriftOfTraffic:
        """Whether sentiment, confidence or lengths have moved since the window before."""
        reference = reference_range(reference_since, reference_until, span, datetime.now(UTC))
        return await drift(reader(), Scope(span, version), reference)

    return router
