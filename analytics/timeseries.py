"""Predictions over time: counts, rates, shares and latency percentiles, bucket by bucket."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from pydantic import Field
from sqlalchemy import Label, Subquery, func, select

from analytics.buckets import EPOCH, SMALLEST_FIRST, floor
from analytics.latency import percentiles_ms
from analytics.reader import Reader
from analytics.scope import Scope, Window
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import (
    all_sentiments,
    counts,
    failed_texts,
    histogram_rows,
    sentiment_sums,
    whole_sum,
)
from analytics.time_range import TimeRange
from core.errors import invalid_field
from core.types import SENTIMENTS, Sentiment, Version
from stats.results import Result

BucketName = Literal["minute", "hour", "day"]
BUCKETS: dict[BucketName, timedelta] = dict(zip(get_args(BucketName), SMALLEST_FIRST, strict=True))
MAX_BUCKETS = 1_500
# If the caller names no bucket: the smallest that gives no more points than this.
USUAL_BUCKETS = 180


class Point(Result):
    """One bucket of one version."""

    time: datetime = Field(description="start of the bucket; the first may begin before `since`")
    version: Version
    predictions: int
    failures: int = Field(description="texts that this version could not answer")
    per_second: float = Field(description="predictions over the part of the bucket in the range")
    sentiments: dict[Sentiment, int]
    average_confidence: float | None = Field(description="null without predictions")
    cache_hit_rate: float | None = Field(description="percent")
    p50_ms: float | None = Field(description="latency, within 1 % of the exact percentile")
    p95_ms: float | None
    p99_ms: float | None


class Timeseries(Window):
    bucket: BucketName
    points: list[Point] = Field(description="by time, then version; buckets without any are absent")


def choose_bucket(span: TimeRange, requested: BucketName | None) -> BucketName:
    """`requested`, or the smallest bucket that gives a readable number of points.

    Raises:
        InvalidRequest: `requested` would give more than MAX_BUCKETS points.
    """
    length = span.until - span.since
    if requested is None:
        return next((name for name in BUCKETS if length / BUCKETS[name] <= USUAL_BUCKETS), "day")
    if length / BUCKETS[requested] > MAX_BUCKETS:
        raise invalid_field(
            "bucket",
            f"{requested} gives more than {MAX_BUCKETS:,} points; "
            "take a shorter range or a larger bucket",
        )
    return requested


def _bucket(shape: Shape, facts: Subquery) -> Label[Any]:
    return func.date_bin(shape.largest_bucket, facts.c.time, EPOCH).label("bucket")


@per_shape
def _sums(shape: Shape) -> AnySelect:
    facts = counts(shape)
    return select(
        _bucket(shape, facts),
        facts.c.version,
        *sentiment_sums(facts),
        func.sum(facts.c.confidence_sum).label("confidence"),
        whole_sum(all_sentiments(facts), facts.c.cache_hit).label("cache_hits"),
    ).group_by("bucket", "version")


@per_shape
def _latencies(shape: Shape) -> AnySelect:
    facts = histogram_rows(shape, "latency_ms")
    return select(_bucket(shape, facts), facts.c.version, facts.c.bins, facts.c.counts)


@per_shape
def _failures(shape: Shape) -> AnySelect:
    facts = failed_texts(shape)
    return select(
        _bucket(shape, facts), facts.c.version, whole_sum(facts.c.texts).label("texts")
    ).group_by("bucket", "version")


async def timeseries(reader: Reader, scope: Scope, bucket: BucketName) -> Timeseries:
    size = BUCKETS[bucket]
    sums, latencies, unanswered = await asyncio.gather(
        reader.select(_sums(scope, size)),
        reader.many_histograms(_latencies(scope, size)),
        reader.select(_failures(scope, size)),
    )
    answered = {(row.bucket, row.version): row for row in sums}
    failures = {(row.bucket, row.version): row.texts for row in unanswered}
    points = []
    for start, version in sorted(answered.keys() | failures.keys()):
        row = answered.get((start, version))
        sentiments: dict[Sentiment, int] = {
            name: getattr(row, name) if row else 0 for name in SENTIMENTS
        }
        predictions = sum(sentiments.values())
        points.append(
            Point(
                time=start,
                version=version,
                predictions=predictions,
                failures=failures.get((start, version), 0),
                per_second=predictions / _seconds_inside(scope.span, start, size),
                sentiments=sentiments,
                average_confidence=row.confidence / predictions if row else None,
                cache_hit_rate=100 * row.cache_hits / predictions if row else None,
                **percentiles_ms(latencies.get((start, version), {})),
            )
        )
    return Timeseries(**scope.window, bucket=bucket, points=points)


def _seconds_inside(span: TimeRange, bucket: datetime, size: timedelta) -> float:
    since, until = max(span.since, floor(bucket, size)), min(span.until, bucket + size)
    return (until - since).total_seconds()
