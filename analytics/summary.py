"""Totals of the predictions: how many, how confident, how fast, and which sentiments."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sqlalchemy import func, select

from analytics.reader import Reader
from analytics.scope import Scope
from analytics.subqueries import all_sentiments, counts, failed_texts, sentiment_sums, whole_sum
from core.types import SENTIMENTS, Sentiment, Version


class Summary(NamedTuple):
    """The averages and the rate, in percent, are None without predictions."""

    total_predictions: int
    by_version: dict[Version, int]
    failures: int
    average_confidence: float | None
    average_latency_ms: float | None
    cache_hit_rate: float | None


async def summary(reader: Reader, scope: Scope) -> Summary:
    facts, failed = counts(scope), failed_texts(scope)
    predictions = all_sentiments(facts)
    summed = reader.select(
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
    unanswered = reader.select(select(whole_sum(failed.c.texts).label("texts")))
    rows, [failures] = await asyncio.gather(summed, unanswered)
    total = sum(row.predictions for row in rows)
    return Summary(
        total_predictions=total,
        by_version={row.version: row.predictions for row in rows},
        failures=failures.texts,
        average_confidence=sum(row.confidence for row in rows) / total if total else None,
        average_latency_ms=sum(row.latency_ms for row in rows) / total if total else None,
        cache_hit_rate=100 * sum(row.cache_hits for row in rows) / total if total else None,
    )


async def sentiment_counts(reader: Reader, scope: Scope) -> dict[Sentiment, int]:
    [row] = await reader.select(select(*sentiment_sums(counts(scope))))
    return dict(zip(SENTIMENTS, row, strict=True))
