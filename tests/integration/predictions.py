"""Makes and writes predictions for the tests of the log and of the queries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import ComparisonRecord, TextStorage, to_record
from analytics.log.writer import LogWriter
from core.types import (
    Classification,
    Comparison,
    Endpoint,
    Failure,
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
    ) -> None:
        await self._writer.write(
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
) -> Prediction:
    created_at = created_at or datetime.now(UTC)
    return Prediction.of(
        prediction_id=new_id(created_at),
        created_at=created_at,
        endpoint=endpoint,
        version=version,
        text=text,
        classification=Classification(
            f"{version}-revision",
            "fake",
            scores or {"negative": 0.25, "positive": 0.75},
            token_count=5,
            truncated=False,
        ),
        cache_hit=cache_hit,
        latency_ms=latency_ms,
    )
