"""Predictions over time: counts, rates, shares and latency percentiles, bucket by bucket."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field

from analytics.buckets import floor
from analytics.latency import percentiles_ms
from analytics.reader import Reader
from analytics.sql_fragment import Scope, counts, failures, histogram_rows
from analytics.time_range import TimeRange
from analytics.window import Window, window
from core.errors import invalid_field
from core.types import SENTIMENTS, Sentiment, Version

BucketName = Literal["minute", "hour", "day"]
BUCKETS: dict[BucketName, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
MAX_BUCKETS = 1_500
# Without a bucket of the caller's choice: the smallest that gives no more points than this.
USUAL_BUCKETS = 180


class Point(BaseModel):
    """One bucket of one version."""

    time: datetime = Field(description="start of the bucket; the first may begin before `since`")
    version: Version
    predictions: int
    failures: int = Field(description="texts that were not answered, for this version could not")
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


def choose_bucket(span: TimeRange, wanted: BucketName | None) -> BucketName:
    """`wanted`, or the smallest bucket that gives a readable number of points.

    Raises:
        InvalidRequest: `wanted` would give more than MAX_BUCKETS points.
    """
    length = span.until - span.since
    if wanted is None:
        return next((name for name in BUCKETS if length / BUCKETS[name] <= USUAL_BUCKETS), "day")
    if length / BUCKETS[wanted] > MAX_BUCKETS:
        raise invalid_field(
            "bucket",
            f"{wanted} gives more than {MAX_BUCKETS:,} points; take a shorter range or larger ones",
        )
    return wanted


async def timeseries(reader: Reader, scope: Scope, bucket: BucketName) -> Timeseries:
    size = BUCKETS[bucket]
    time = f"date_bin('{int(size.total_seconds())} s', time, TIMESTAMPTZ 'epoch') AS bucket"
    grouped = "GROUP BY bucket, version"
    total = "negative + neutral + positive"
    sums = reader.select(
        f"{time}, version, {', '.join(f'sum({name})::bigint AS {name}' for name in SENTIMENTS)}, "
        f"sum(confidence_sum) AS confidence, "
        f"coalesce(sum({total}) FILTER (WHERE cache_hit), 0)::bigint AS cache_hits",
        counts(scope, size),
        grouped,
    )
    took = histogram_rows(scope, "latency_ms", size)
    rows, bins, failed = await asyncio.gather(
        sums,
        reader.add_histograms(f"{time}, version", took),
        reader.select(f"{time}, version, sum(texts) AS texts", failures(scope, size), grouped),
    )
    said = {(row["bucket"], row["version"]): row for row in rows}
    unanswered = {(row["bucket"], row["version"]): int(row["texts"]) for row in failed}
    points = []
    for start, version in sorted(said.keys() | unanswered.keys()):
        row = said.get((start, version))
        sentiments: dict[Sentiment, int] = {name: row[name] if row else 0 for name in SENTIMENTS}
        predictions = sum(sentiments.values())
        points.append(
            Point(
                time=start,
                version=version,
                predictions=predictions,
                failures=unanswered.get((start, version), 0),
                per_second=predictions / _seconds_inside(scope.span, start, size),
                sentiments=sentiments,
                average_confidence=row and row["confidence"] / predictions,
                cache_hit_rate=row and 100 * row["cache_hits"] / predictions,
                **percentiles_ms(bins.get((start, version), {})),
            )
        )
    return Timeseries(**window(scope), bucket=bucket, points=points)


def _seconds_inside(span: TimeRange, bucket: datetime, size: timedelta) -> float:
    since, until = max(span.since, floor(bucket, size)), min(span.until, bucket + size)
    return (until - since).total_seconds()
