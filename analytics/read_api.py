"""The GET endpoints under /analytics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from analytics.confidence import Confidence, confidence
from analytics.drift import DriftOfTraffic, drift
from analytics.facts import Scope
from analytics.latency import Latency, latency
from analytics.queries import (
    AnalyticsQueries,
    RecentPredictions,
    SentimentDistribution,
    Summary,
)
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


def analytics_router(queries: Callable[[], AnalyticsQueries]) -> APIRouter:
    """The router. `queries` is asked at each request: the pool is made when serving starts."""
    router = APIRouter(prefix="/analytics", tags=["analytics"])

    @router.get("/summary")
    async def summary(span: Span, version: VersionFilter = None) -> Summary:
        """Totals and averages of the predictions in a time range (the last 24 hours)."""
        return await queries().summary(span, version)

    @router.get("/sentiment-distribution")
    async def sentiment_distribution(
        span: Span, version: VersionFilter = None
    ) -> SentimentDistribution:
        """How many predictions said what."""
        return await queries().sentiment_distribution(span, version)

    @router.get("/recent")
    async def recent(
        span: Span,
        version: VersionFilter = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> RecentPredictions:
        """The newest predictions, without their texts."""
        return await queries().recent(span, version, limit)

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
        return await timeseries(queries().reader, scope, choose_bucket(span, bucket))

    @router.get("/latency")
    async def latency_percentiles(span: Span, version: VersionFilter = None) -> Latency:
        """Percentiles of the time inside the service, apart for cached and computed answers."""
        return await latency(queries().reader, Scope(span, version))

    @router.get("/confidence")
    async def confidence_of_predictions(span: Span, version: VersionFilter = None) -> Confidence:
        """How sure the versions are: mean and histogram."""
        return await confidence(queries().reader, Scope(span, version))

    @router.get("/drift")
    async def drift_of_traffic(
        span: Span,
        version: VersionFilter = None,
        reference_since: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
        reference_until: Annotated[str | None, Query(max_length=40, description=_TIME_HELP)] = None,
    ) -> DriftOfTraffic:
        """Whether sentiment, confidence or lengths have moved since the window before."""
        reference = reference_range(reference_since, reference_until, span, datetime.now(UTC))
        return await drift(queries().reader, Scope(span, version), reference)

    return router
