"""How predictions and comparisons become rows of the prediction log."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from analytics.identities import Identities
from analytics.tables import comparisons, predictions
from values import Comparison, Prediction

TextStorage = Literal["full", "hash", "none"]

PREDICTION_COLUMNS = tuple(column.name for column in predictions.columns)
COMPARISON_COLUMNS = tuple(column.name for column in comparisons.columns)


def prediction_row(
    prediction: Prediction, identities: Identities, text_storage: TextStorage
) -> tuple[Any, ...]:
    """A row in the order of `PREDICTION_COLUMNS`; `identities` has learned of the prediction."""
    classification, assignment = prediction.classification, prediction.assignment
    scores = classification.scores
    return (
        prediction.id,
        prediction.created_at,
        identities.models[prediction.model],
        prediction.endpoint,
        classification.sentiment,
        classification.confidence,
        scores.get("negative"),
        scores.get("neutral"),
        scores.get("positive"),
        prediction.latency_ms,
        prediction.cache_hit,
        classification.truncated,
        classification.token_count,
        len(prediction.text),
        None if text_storage == "none" else hashlib.sha256(prediction.text.encode()).digest(),
        prediction.text if text_storage == "full" else None,
        assignment and identities.experiments[assignment.experiment],
        assignment and assignment.subject_key,
    )


def comparison_row(comparison: Comparison) -> tuple[Any, ...]:
    """A row in the order of `COMPARISON_COLUMNS`."""
    return (comparison.id, comparison.created_at, comparison.v1.id, comparison.v2.id)
