"""Turns log entries into rows: a field goes to the column of its name.

The exceptions: `model` and the experiment of `assignment` are stored as their keys, and each score
has a column of its own.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord
from core.types import SENTIMENTS, Failure, Prediction

_OWN_NAME = tuple(
    field
    for field in Prediction.__struct_fields__
    if field not in {"model", "scores", "text", "assignment"}
)
PREDICTION_COLUMNS = (
    *_OWN_NAME,
    "text",
    "model_version_id",
    *(f"score_{sentiment}" for sentiment in SENTIMENTS),
    "experiment_id",
    "subject_key",
)
COMPARISON_COLUMNS = ComparisonRecord.__struct_fields__
FAILURE_COLUMNS = ("id", "created_at", "endpoint", "model_version_id", "texts")

_own_name_values = attrgetter(*_OWN_NAME)
comparison_row = attrgetter(*COMPARISON_COLUMNS)


def prediction_row(prediction: Prediction, keys: DimensionKeys) -> tuple[Any, ...]:
    """A row in the order of `PREDICTION_COLUMNS`; `keys` has resolved the prediction."""
    assignment = prediction.assignment
    return (
        *_own_name_values(prediction),
        prediction.text or None,
        keys.models[prediction.model],
        # NULL is a class that the checkpoint does not have.
        *map(prediction.scores.get, SENTIMENTS),
        *(
            (None, None)
            if assignment is None
            else (keys.experiments[assignment.experiment], assignment.subject_key)
        ),
    )


def failure_row(failure: Failure, keys: DimensionKeys) -> tuple[Any, ...]:
    """A row in the order of `FAILURE_COLUMNS`; `keys` has resolved the failure."""
    return (
        failure.id,
        failure.created_at,
        failure.endpoint,
        keys.models[failure.model],
        failure.texts,
    )
