"""Makes and writes predictions for the tests of the log and of the queries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import ComparisonRecord, TextStorage, to_record
from analytics.log.writer import LogWriter
from analytics.partition_maintenance import DAYS_AHEAD
from analytics.partitions import make_partitions
from core.types import (
    Comparison,
    Endpoint,
    Failure,
    ModelVersion,
    Prediction,
    Sentiment,
    Version,
)
from core.uuid7 import new_id


class PredictionWriter:
    """Writes predictions as the log does, without a spool in between."""

    def __init__(self, engine: AsyncEngine, text_storage: TextStorage = "hash") -> None:
        self._writer = LogWriter(engine)
        self._text_storage: TextStorage = text_storage

    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[Comparison] = (),
        failures: Sequence[Failure] = (),
    ) -> int:
        return await self._writer.write(
            [to_record(prediction, self._text_storage) for prediction in predictions],
            [ComparisonRecord.of(comparison) for comparison in comparisons],
            failures,
        )


def make_prediction(
    text: str = "A film.",
    *,
    version: Version = "v1",
    scores: dict[Sentiment, float] | None = None,
    created_at: datetime | None = None,
    endpoint: Endpoint = "/predict",
    cache_hit: bool = False,
    latency_ms: float = 12.5,
    token_count: int = 5,
) -> Prediction:
    created_at = created_at or datetime.now(UTC)
    scores = scores or {"negative": 0.25, "positive": 0.75}
    sentiment = max(scores, key=scores.__getitem__)
    return Prediction(
        id=new_id(created_at),
        created_at=created_at,
        endpoint=endpoint,
        model=ModelVersion(version, f"{version}-revision", "fake"),
        sentiment=sentiment,
        confidence=scores[sentiment],
        scores=scores,
        latency_ms=latency_ms,
        cache_hit=cache_hit,
        truncated=False,
        token_count=token_count,
        text_characters=len(text),
        text=text,
    )


def made_of(
    count: int, positives: float, since: datetime, span: timedelta, version: Version = "v1"
) -> list[Prediction]:
    """Predictions at random times of a span, of which about so large a share is positive."""
    numbers = random.Random(3)
    predictions = []
    for _ in range(count):
        said: Sentiment = "positive" if numbers.random() < positives else "negative"
        other: Sentiment = "negative" if said == "positive" else "positive"
        scores: dict[Sentiment, float] = {said: 0.9, other: 0.1}
        created_at = since + span * numbers.random()
        predictions.append(make_prediction(version=version, scores=scores, created_at=created_at))
    return predictions


async def serve_before(engine: AsyncEngine, today: date) -> None:
    """Make the partitions that a service makes that ran on the day before."""
    async with engine.begin() as connection:
        days = [today + timedelta(days=n) for n in range(-1, DAYS_AHEAD)]
        await make_partitions(connection, days)
