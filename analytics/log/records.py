"""What the log keeps of a prediction, and how it is one line of a spool."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from core.types import (
    Assignment,
    Comparison,
    Endpoint,
    Failure,
    ModelVersion,
    Prediction,
    Sentiment,
)

TextStorage = Literal["full", "hash", "none"]


class PredictionRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A prediction without its text, unless that is to be kept."""

    id: UUID
    created_at: datetime
    endpoint: Endpoint
    model: ModelVersion
    sentiment: Sentiment
    confidence: float
    scores: dict[Sentiment, float]
    latency_ms: float
    cache_hit: bool
    truncated: bool
    token_count: int
    text_characters: int
    text_sha256: bytes | None = None
    text: str | None = None
    assignment: Assignment | None = None

    @classmethod
    def of(cls, prediction: Prediction, text_storage: TextStorage) -> PredictionRecord:
        classification, text = prediction.classification, prediction.text
        return cls(
            id=prediction.id,
            created_at=prediction.created_at,
            endpoint=prediction.endpoint,
            model=prediction.model,
            sentiment=classification.sentiment,
            confidence=classification.confidence,
            scores=classification.scores,
            latency_ms=prediction.latency_ms,
            cache_hit=prediction.cache_hit,
            truncated=classification.truncated,
            token_count=classification.token_count,
            text_characters=len(text),
            text_sha256=(
                None if text_storage == "none" else hashlib.sha256(text.encode()).digest()
            ),
            text=text if text_storage == "full" else None,
            assignment=prediction.assignment,
        )


class ComparisonRecord(msgspec.Struct, frozen=True, gc=False):
    """That two predictions are of one ab-compare request."""

    id: UUID
    created_at: datetime
    v1_prediction_id: UUID
    v2_prediction_id: UUID

    @classmethod
    def of(cls, comparison: Comparison) -> ComparisonRecord:
        return cls(comparison.id, comparison.created_at, comparison.v1.id, comparison.v2.id)


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is recorded at once: the predictions of one request, or failures of a moment."""

    predictions: tuple[PredictionRecord, ...] = ()
    comparison: ComparisonRecord | None = None
    failures: tuple[Failure, ...] = ()
    trace_parent: str | None = None  # of the request, where it is traced


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """One line of JSON, its end included."""
    return _encoder.encode(entry) + b"\n"


def decode(line: bytes) -> Entry:
    """Raises msgspec.MsgspecError: the line is not one of `encode`."""
    return _decoder.decode(line)
