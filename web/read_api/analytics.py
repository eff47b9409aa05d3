"""The GET endpoints under /analytics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from analytics.ab.over_time import AbOverTime, ab_over_time
from analytics.ab.report import AbTest, ab_test
from analytics.confidence import Confidence, confidence
from analytics.drift import DriftOfTraffic, drift
from analytics.latency import Latency, exact_latency, latency
from analytics.reader import Reader
from analytics.recent import RecentPredictions, recent
from analytics.review.draw import ReviewDraws
from analytics.review.queue import ReviewItem, ReviewQueue, review_queue
from analytics.scope import Scope
from analytics.summary import SentimentDistribution, Summary, sentiment_distribution, summary
from analytics.time_range import TimeRange, parse_ends, parse_range, reference_range
from analytics.timeseries import BucketName, Timeseries, choose_bucket, timeseries
from core.request_context import context_of
from core.types import Version
from web.read_api.csv_rows import CSV_REPLY, Format, csv_response

# This only describes the formats in the OpenAPI document; `parse_range` validates them.
_TIME = Query(
    max_length=40,
    description="ISO 8601 with an offset (2026-01-31T12:00:00Z), or relative to now (30m, 24h, 7d)",
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


def _scope(
    span: Annotated[TimeRange, Depends(_span)],
    version: Annotated[Version | None, Query(description="v1 or v2; both if absent")] = None,
) -> Scope:
    return Scope(span, version)


ChosenScope = Annotated[Scope, Depends(_scope)]
FormatChoice = Annotated[Format, Query(alias="format", description="csv: rows, with a header")]


def analytics_router(reader: Callable[[], Reader], draws: Callable[[], ReviewDraws]) -> APIRouter:
    """The router. Each request calls the functions: the pool is made when serving starts."""
    router = APIRouter(prefix="/analytics", tags=["analytics"])

    @router.get("/summary")
    async def totals(scope: ChosenScope) -> Summary:
        """Totals and averages of the predictions in a time range (the last 24 hours)."""
        return await summary(reader(), scope)

    @router.get("/sentiment-distribution")
    async def counts_by_sentiment(scope: ChosenScope) -> SentimentDistribution:
        """The number of predictions of each sentiment."""
        return await sentiment_distribution(reader(), scope)

    @router.get("/recent", response_model=RecentPredictions, responses=CSV_REPLY)
    async def newest_predictions(
        *,
        request: Request,
        scope: ChosenScope,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[
            UUID | None, Query(description="`next_before` of the page before; absent for the first")
        ] = None,
        answer: FormatChoice = "json",
    ) -> RecentPredictions | Response:
        """The newest predictions, without their texts, page by page.

        As CSV, the next page is in the Link header.
        """
        page = await recent(reader(), scope, limit, before)
        if answer == "json":
            return page
        headers = {}
        if page.next_before is not None:
            following = request.url.include_query_params(before=page.next_before)
            # Relative: a proxy may have another path before this service's.
            headers["link"] = f'<?{following.query}>; rel="next"'
        return csv_response("recent", page.predictions, headers)

    @router.get("/timeseries", response_model=Timeseries, responses=CSV_REPLY)
    async def predictions_over_time(
        scope: ChosenScope,
        bucket: Annotated[
            BucketName | None,
            Query(description="by default, the smallest that gives at most 180 points"),
        ] = None,
        answer: FormatChoice = "json",
    ) -> Timeseries | Response:
        """Counts, rates, shares and latency, bucket by bucket, for each version."""
        reply = await timeseries(reader(), scope, choose_bucket(scope.span, bucket))
        return reply if answer == "json" else csv_response("timeseries", reply.points)

    @router.get("/latency", response_model=Latency, responses=CSV_REPLY)
    async def latency_percentiles(
        scope: ChosenScope,
        exact: Annotated[
            bool,
            Query(description="computed from every prediction; for a range of an hour at most"),
        ] = False,
        answer: FormatChoice = "json",
    ) -> Latency | Response:
        """Percentiles of the time inside the service, for cached and for computed answers."""
        reply = await (exact_latency if exact else latency)(reader(), scope)
        return reply if answer == "json" else csv_response("latency", reply.percentiles)

    @router.get("/confidence", response_model=Confidence, responses=CSV_REPLY)
    async def confidence_of_predictions(
        scope: ChosenScope, answer: FormatChoice = "json"
    ) -> Confidence | Response:
        """The confidence of each version and, with feedback, its calibration.

        As CSV, the reply is the histogram.
        """
        reply = await confidence(reader(), scope)
        if answer == "json":
            return reply
        bins = [
            {**dict(row), "version": of.version} for of in reply.versions for row in of.histogram
        ]
        return csv_response("confidence", bins)

    @router.get("/drift")
    async def drift_of_traffic(
        request: Request,
        scope: ChosenScope,
        reference_since: Since = None,
        reference_until: Until = None,
        texts: Annotated[
            int, Query(ge=0, le=50, description="how many of the texts that moved most are listed")
        ] = 5,
    ) -> DriftOfTraffic:
        """Whether sentiment, confidence, lengths or content have drifted from a reference window.

        If the content has, the texts that moved most are listed, where TEXT_STORAGE keeps texts.
        """
        now = datetime.now(UTC)
        reference = reference_range(reference_since, reference_until, scope.span, now)
        return await drift(
            reader(),
            scope,
            reference,
            texts=texts,
            shows_texts=context_of(request.scope).may_label,
        )

    @router.get("/review-queue", response_model=ReviewQueue, responses=CSV_REPLY)
    async def what_to_label_next(
        request: Request,
        scope: ChosenScope,
        limit: Annotated[
            int, Query(ge=0, le=200, description="0: only the counts; nothing is drawn")
        ] = 50,
        answer: FormatChoice = "json",
    ) -> ReviewQueue | Response:
        """What to label next: predictions that were chosen with known probabilities, and why.

        If few are left, more are drawn from what no draw has seen; after a draw from more than a
        hundred predictions that takes five minutes. A label that /feedback gets for one of them
        counts with its weight.
        """
        reply = await review_queue(
            reader(),
            draws(),
            scope,
            limit,
            datetime.now(UTC),
            shows_texts=context_of(request.scope).may_label,
        )
        return reply if answer == "json" else csv_response("review-queue", _joined(reply.items))

    @router.get("/ab", summary="v2 against v1")
    async def v2_against_v1(since: Since = None, until: Until = None) -> AbTest:
        """Whether v2 is better than v1: the verdicts of both kinds of A/B test, and their numbers.

        Without `since`, each test counts from its beginning. A verdict holds however often it is
        read, as long as `since` stays the same; it does not hold in a sliding window.
        """
        ends = parse_ends(since, until, datetime.now(UTC))
        return await ab_test(reader(), *ends)

    @router.get("/ab/over-time")
    async def difference_over_time(until: Until = None) -> AbOverTime:
        """The difference in accuracy and its interval, from the beginning of each test on."""
        _, end = parse_ends(None, until, datetime.now(UTC))
        return await ab_over_time(reader(), end)

    return router


def _joined(items: Sequence[ReviewItem]) -> list[dict[str, Any]]:
    """Items whose lists are one cell each."""
    return [
        {
            **dict(item),
            **{name: " ".join(getattr(item, name)) for name in ("classes", "reasons")},
        }
        for item in items
    ]
