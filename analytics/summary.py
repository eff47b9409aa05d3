"""What was predicted, in totals: how many, how sure, how fast, and which sentiments."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from analytics.reader import Reader
from analytics.sql_fragment import Scope, counts, failures
from analytics.window import Window, window
from core.types import SENTIMENTS, Sentiment, Version


class Summary(Window):
    total_predictions: int
    by_version: dict[Version, int]
    failures: int = Field(description="texts that were not answered, for a version could not")
    average_confidence: float | None = Field(description="null without predictions")
    average_latency_ms: float | None
    cache_hit_rate: float | None = Field(description="percent of the predictions")


class SentimentShare(BaseModel):
    count: int
    percent: float


class SentimentDistribution(Window):
    total_predictions: int
    distribution: dict[Sentiment, SentimentShare]


async def summary(reader: Reader, scope: Scope) -> Summary:
    summed = reader.select(
        "version, sum(negative + neutral + positive)::bigint AS predictions, "
        "sum(confidence_sum) AS confidence, sum(latency_ms_sum) AS latency_ms, "
        "coalesce(sum(negative + neutral + positive) FILTER (WHERE cache_hit), 0)::bigint "
        "AS cache_hits",
        counts(scope),
        "GROUP BY version ORDER BY version",
    )
    failed = reader.select("coalesce(sum(texts), 0)::bigint AS texts", failures(scope))
    rows, [unanswered] = await asyncio.gather(summed, failed)
    total = sum(row["predictions"] for row in rows)

    def average(column: str) -> float | None:
        return sum(row[column] for row in rows) / total if total else None

    hit_share = average("cache_hits")
    return Summary(
        **window(scope),
        total_predictions=total,
        by_version={row["version"]: row["predictions"] for row in rows},
        failures=unanswered["texts"],
        average_confidence=average("confidence"),
        average_latency_ms=average("latency_ms"),
        cache_hit_rate=None if hit_share is None else 100 * hit_share,
    )


async def sentiment_distribution(reader: Reader, scope: Scope) -> SentimentDistribution:
    said = await sentiment_counts(reader, scope)
    total = sum(said.values())
    return SentimentDistribution(
        **window(scope),
        total_predictions=total,
        distribution={
            sentiment: SentimentShare(count=count, percent=100 * count / total if total else 0.0)
            for sentiment, count in said.items()
        },
    )


async def sentiment_counts(reader: Reader, scope: Scope) -> dict[Sentiment, int]:
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SENTIMENTS)
    [row] = await reader.select(sums, counts(scope))
    return {sentiment: row[sentiment] for sentiment in SENTIMENTS}
