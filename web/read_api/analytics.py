"""The GET endpoints under /analytics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from analytics.ab.over_time import ab_over_time
from analytics.ab.report import ab_test
from analytics.confidence import confidence
from analytics.drift import drift
from analytics.latency import exact_latency, latency
from analytics.reader import Reader
from analytics.recent import recent
from analytics.scope import Scope
from analytics.summary import sentiment_counts, summary
from analytics.time_range import TimeRange, parse_ends, parse_range, reference_range
from analytics.timeseries import BucketName, choose_bucket, timeseries
from core.types import Version
from web.read_api.csv_rows import CSV_REPLY, Format, csv_response
from web.schemas.ab import AbOverTime, AbTest
from web.schemas.analytics import (
    Confidence,
    DriftOfTraffic,
    Latency,
    RecentPredictions,
    SentimentDistribution,
    Summary,
    Timeseries,
)

_TIME_HELP = "ISO 8601 with an offset (2026-01-31T12:00:00Z), or relative to now (30m, 24h, 7d)"


# This only describes the formats in the OpenAPI document; `parse_range` validates them.
_TIME = Query(
    max_length=40,
    description=_TIME_HELP,
    json_schema_extra={
        "anyOf": [
            {"type": "string", "format": "date-time", "maxLength": 40},
            {"type": "string", "pattern": "^[1-9][0-9]{0,5}[mhd]$"},
            {"type": "null"},
        ]
    },
)
Since = Annotated[str | None, _TIME]
Until = Annotated[str | None, _TIME]


def _span(since: Since = None, until: Until = None) -> TimeRange:
    return parse_range(since, until, datetime.now(UTC))


Span = Annotated[TimeRange, Depends(_span)]
FormatChoice = Annotated[Format, Query(alias="format", description="csv: rows, with a header")]
VersionFilter = Annotated[Version | None, Query(description="v1 or v2; both if absent")]


def analytics_router(reader: Callable[[], Reader]) -> APIRouter:
    """The router. Each request calls `reader`: the pool is made when serving starts."""
    router = APIRouter(prefix="/analytics", tags=["analytics"])

    @router.get("/summary")
    async def totals(span: Span, version: VersionFilter = None) -> Summary:
        """Totals and averages of the predictions in a time range (the last 24 hours)."""
        scope = Scope(span, version)
        return Summary.of(scope, **(await summary(reader(), scope))._asdict())

    @router.get("/sentiment-distribution")
    async def counts_by_sentiment(
        span: Span, version: VersionFilter = None
    ) -> SentimentDistribution:
        """The number of predictions of each sentiment."""
        scope = Scope(span, version)
        return SentimentDistribution.of_counts(scope, await sentiment_counts(reader(), scope))

    @router.get("/recent", response_model=RecentPredictions, responses=CSV_REPLY)
    async def newest_predictions(
        *,
        request: Request,
        span: Span,
        version: VersionFilter = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[
            UUID | None, Query(description="`next_before` of the page before; absent for the first")
        ] = None,
        answer: FormatChoice = "json",
    ) -> RecentPredictions | Response:
        """The newest predictions, without their texts, page by page.

        As CSV, the next page is in the Link header.
        """
        scope = Scope(span, version)
        page = RecentPredictions.of(
            scope, **(await recent(reader(), scope, limit, before))._asdict()
        )
        if answer == "json":
            return page
        headers = {}
        if page.next_before is not None:
            following = request.url.include_query_params(before=page.next_before)
            headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
        return csv_response("recent", page.predictions, headers)

    @router.get("/timeseries", response_model=Timeseries, responses=CSV_REPLY)
    async def predictions_over_time(
        span: Span,
        version: VersionFilter = None,
        bucket: Annotated[
            BucketName | None,
            Query(description="by default, the smallest that gives at most 180 points"),
        ] = None,
        answer: FormatChoice = "json",
    ) -> Timeseries | Response:
        """Counts, rates, shares and latency, bucket by bucket, for each version."""
        scope = Scope(span, version)
        chosen = choose_bucket(span, bucket)
        points = await timeseries(reader(), scope, chosen)
        reply = Timeseries.of(scope, bucket=chosen, points=points)
        return reply if answer == "json" else csv_response("timeseries", reply.points)

    @router.get("/latency", response_model=Latency, responses=CSV_REPLY)
    async def latency_percentiles(
        span: Span,
        version: VersionFilter = None,
        exact: Annotated[
            bool,
            Query(description="computed from every prediction; for a range of an hour at most"),
        ] = False,
        answer: FormatChoice = "json",
    ) -> Latency | Response:
        """Percentiles of the time inside the service, for cached and for computed answers."""
        scope = Scope(span, version)
        percentiles = await (exact_latency if exact else latency)(reader(), scope)
        reply = Latency.of(scope, exact=exact, percentiles=percentiles)
        return reply if answer == "json" else csv_response("latency", reply.percentiles)

    @router.get("/confidence", response_model=Confidence, responses=CSV_REPLY)
    async def confidence_of_predictions(
        span: Span, version: VersionFilter = None, answer: FormatChoice = "json"
    ) -> Confidence | Response:
        """The confidence of each version and, with feedback, its calibration.

        As CSV, the reply is the histogram.
        """
        scope = Scope(span, version)
        reply = Confidence.of(scope, versions=await confidence(reader(), scope))
        return reply if answer == "json" else csv_response("confidence", reply.histogram_rows())

    @router.get("/drift")
    async def drift_of_traffic(
        span: Span,
        version: VersionFilter = None,
        reference_since: Since = None,
        reference_until: Until = None,
    ) -> DriftOfTraffic:
        """Whether sentiment, confidence or lengths have drifted from a reference window."""
        reference = reference_range(reference_since, reference_until, span, datetime.now(UTC))
        scope = Scope(span, version)
        report = await drift(reader(), scope, reference)
        return DriftOfTraffic.of_report(scope, reference, report)

    @router.get("/ab")
    async def v2_against_v1(since: Since = None, until: Until = None) -> AbTest:
        """Whether v2 is better than v1: the verdicts of both kinds of A/B test, and their numbers.

        Without `since`, each test counts from its beginning. A verdict holds however often it is
        read, as long as `since` stays the same; it does not hold in a sliding window.
        """
        ends = parse_ends(since, until, datetime.now(UTC))
        return AbTest.of(await ab_test(reader(), *ends))

    @router.get("/ab/over-time")
    async def difference_over_time(until: Until = None) -> AbOverTime:
        """The difference in accuracy and its interval, from the beginning of each test on."""
        _, end = parse_ends(None, until, datetime.now(UTC))
        points = await ab_over_time(reader(), end)
        return AbOverTime.model_validate(points, from_attributes=True)

    return router
