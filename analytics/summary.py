"""Totals of the predictions: how many, how confident, how fast, and which sentiments."""

from __future__ import annotations

import asyncio

from pydantic import Field
from sqlalchemy import func, select

from analytics.reader import Reader
from analytics.scope import Scope, Window
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import all_sentiments, counts, failed_texts, sentiment_sums, whole_sum
from core.types import SENTIMENTS, Sentiment, Version
from stats.results import Result


class Summary(Window):
    total_predictions: int
    by_version: dict[Version, int]
    failures: int = Field(description="texts that a version could not answer")
    average_confidence: float | None = Field(description="null without predictions")
    average_latency_ms: float | None
    cache_hit_rate: float | None = Field(description="percent of the predictions")


class SentimentShare(Result):
    count: int
    percent: float


class SentimentDistribution(Window):
    total_predictions: int
    distribution: dict[Sentiment, SentimentShare]


@per_shape
def _totals(shape: Shape) -> AnySelect:
    facts = counts(shape)
    predictions = all_sentiments(facts)
    return (
        select(
            facts.c.version,
            whole_sum(predictions).label("predictions"),
            func.sum(facts.c.confidence_sum).label("confidence"),
            func.sum(facts.c.latency_ms_sum).label("latency_ms"),
            whole_sum(predictions, facts.c.cache_hit).label("cache_hits"),
        )
        .group_by(facts.c.version)
        .order_by(facts.c.version)
    )


@per_shape
def _failures(shape: Shape) -> AnySelect:
    return select(whole_sum(failed_texts(shape).c.texts).label("texts"))


async def summary(reader: Reader, scope: Scope) -> Summary:
    rows, [failures] = await asyncio.gather(
        reader.select(_totals(scope)), reader.select(_failures(scope))
    )
    total = sum(row.predictions for row in rows)
    return Summary(
        **scope.window,
        total_predictions=total,
        by_version={row.version: row.predictions for row in rows},
        failures=failures.texts,
        average_confidence=sum(row.confidence for row in rows) / total if total else None,
        average_latency_ms=sum(row.latency_ms for row in rows) / total if total else None,
        cache_hit_rate=100 * sum(row.cache_hits for row in rows) / total if total else None,
    )


@per_shape
def _sentiments(shape: Shape) -> AnySelect:
    return select(*sentiment_sums(counts(shape)))


async def sentiment_counts(reader: Reader, scope: Scope) -> dict[Sentiment, int]:
    [row] = await reader.select(_sentiments(scope))
    return dict(zip(SENTIMENTS, row, strict=True))


async def sentiment_distribution(reader: Reader, scope: Scope) -> SentimentDistribution:
    counts = await sentiment_counts(reader, scope)
    total = sum(counts.values())
    shares = {
        name: SentimentShare(count=count, percent=100 * count / total if total else 0.0)
        for name, count in counts.items()
    }
    return SentimentDistribution(**scope.window, total_predictions=total, distribution=shares)
