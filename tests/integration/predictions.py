"""Predictions for the tests of the log and of the queries."""

from __future__ import annotations

from datetime import UTC, datetime

from ids import new_id
from values import Classification, Endpoint, Prediction, Sentiment, Version


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
    return Prediction(
        id=new_id(created_at),
        created_at=created_at,
        endpoint=endpoint,
        version=version,
        engine="fake",
        text=text,
        classification=Classification(
            f"{version}-revision",
            scores or {"negative": 0.25, "positive": 0.75},
            token_count=5,
            truncated=False,
        ),
        cache_hit=cache_hit,
        latency_ms=latency_ms,
    )
