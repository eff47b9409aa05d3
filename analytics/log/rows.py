"""How predictions and comparisons become rows of the prediction log."""

from __future__ import annotations

from typing import Any

from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord, PredictionRecord
from analytics.tables import comparisons, predictions

PREDICTION_COLUMNS = tuple(column.name for column in predictions.columns)
COMPARISON_COLUMNS = tuple(column.name for column in comparisons.columns)


def prediction_row(record: PredictionRecord, identities: DimensionKeys) -> tuple[Any, ...]:
    """A row in the order of `PREDICTION_COLUMNS`; `identities` has learned of the prediction."""
    scores, assignment = record.scores, record.assignment
    return (
        record.id,
        record.created_at,
        identities.models[record.model],
        record.endpoint,
        record.sentiment,
        record.confidence,
        scores.get("negative"),
        scores.get("neutral"),
        scores.get("positive"),
        record.latency_ms,
        record.cache_hit,
        record.truncated,
        record.token_count,
        record.text_characters,
        record.text_sha256,
        record.text,
        assignment and identities.experiments[assignment.experiment],
        assignment and assignment.subject_key,
    )


def comparison_row(record: ComparisonRecord) -> tuple[Any, ...]:
    """A row in the order of `COMPARISON_COLUMNS`."""
    return (record.id, record.created_at, record.v1_prediction_id, record.v2_prediction_id)
