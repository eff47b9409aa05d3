"""The analytics queries over the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import reading
from analytics.facts import Scope, counts
from analytics.reader import Reader
from analytics.tables import model_versions, predictions
from analytics.time_range import TimeRange
from analytics.window import Window, window
from values import SENTIMENTS, Endpoint, Sentiment, Version


class Summary(Window):
    total_predictions: int
    by_version: dict[Version, int]
    average_confidence: float | None = Field(description="null without predictions")
    average_latency_ms: float | None
    cache_hit_rate: float | None = Field(description="percent of the predictions")


class SentimentShare(BaseModel):
    count: int
    percent: float


class SentimentDistribution(Window):
    total_predictions: int
    distribution: dict[Sentiment, SentimentShare]


class LoggedPrediction(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    id: UUID
    created_at: datetime
    endpoint: Endpoint
    sentiment: Sentiment
    confidence: float
    latency_ms: float
    cache_hit: bool
    model_version: Version
    model_revision: str
    truncated: bool
    token_count: int


class RecentPredictions(Window):
    predictions: list[LoggedPrediction] = Field(description="newest first; texts are never shown")


class AnalyticsQueries:
    """Answers from PostgreSQL. Every method raises `DatabaseUnavailable` when it cannot."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.reader = Reader(engine)

    async def summary(self, span: TimeRange, version: Version | None) -> Summary:
        scope = Scope(span, version)
        rows = await self.reader.select(
            "version, sum(negative + neutral + positive)::bigint AS predictions, "
            "sum(confidence_sum) AS confidence, sum(latency_ms_sum) AS latency_ms, "
            "coalesce(sum(negative + neutral + positive) FILTER (WHERE cache_hit), 0)::bigint "
            "AS cache_hits",
            counts(scope),
            "GROUP BY version ORDER BY version",
        )
        total = sum(row["predictions"] for row in rows)

        def average(column: str) -> float | None:
            return sum(row[column] for row in rows) / total if total else None

        hit_share = average("cache_hits")
        return Summary(
            **window(scope),
            total_predictions=total,
            by_version={row["version"]: row["predictions"] for row in rows},
            average_confidence=average("confidence"),
            average_latency_ms=average("latency_ms"),
            cache_hit_rate=None if hit_share is None else 100 * hit_share,
        )

    async def sentiment_distribution(
        self, span: TimeRange, version: Version | None
    ) -> SentimentDistribution:
        scope = Scope(span, version)
        sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SENTIMENTS)
        [row] = await self.reader.select(sums, counts(scope))
        total = sum(row[sentiment] for sentiment in SENTIMENTS)
        return SentimentDistribution(
            **window(scope),
            total_predictions=total,
            distribution={
                sentiment: SentimentShare(
                    count=row[sentiment], percent=100 * row[sentiment] / total if total else 0.0
                )
                for sentiment in SENTIMENTS
            },
        )

    async def recent(
        self, span: TimeRange, version: Version | None, limit: int
    ) -> RecentPredictions:
        columns = [
            predictions.c.id,
            predictions.c.created_at,
            predictions.c.endpoint,
            predictions.c.sentiment,
            predictions.c.confidence,
            predictions.c.latency_ms,
            predictions.c.cache_hit,
            model_versions.c.version.label("model_version"),
            model_versions.c.revision.label("model_revision"),
            predictions.c.truncated,
            predictions.c.token_count,
        ]
        newest = (predictions.c.created_at.desc(), predictions.c.id.desc())
        statement = _within(select(*columns), span, version).order_by(*newest).limit(limit)
        rows = await self._rows(statement)
        return RecentPredictions(
            **window(Scope(span, version)),
            predictions=[LoggedPrediction.model_validate(row) for row in rows],
        )

    async def _rows(self, statement: Select[Any]) -> Sequence[RowMapping]:
        async with reading(self._engine) as connection:
            rows: Sequence[RowMapping] = (await connection.execute(statement)).mappings().all()
            return rows


def _within(statement: Select[Any], span: TimeRange, version: Version | None) -> Select[Any]:
    """Join the model versions and keep what lies in `span` and, if given, was made by `version`."""
    statement = statement.join_from(predictions, model_versions).where(
        predictions.c.created_at >= span.since, predictions.c.created_at < span.until
    )
    return statement if version is None else statement.where(model_versions.c.version == version)
