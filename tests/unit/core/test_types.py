"""Value types: the properties that are computed from their fields."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import SENTIMENTS, Classification, Sentiment

SCORES = st.dictionaries(st.sampled_from(SENTIMENTS), st.floats(0, 1), min_size=1)


@given(SCORES)
def test_sentiment_is_the_class_with_the_highest_score(scores: dict[Sentiment, float]) -> None:
    classification = Classification("r", "fake", scores, 3, truncated=False)
    assert classification.confidence == max(scores.values()) == scores[classification.sentiment]


def test_tie_goes_to_the_first_class_of_the_checkpoint() -> None:
    tie: dict[Sentiment, float] = {"negative": 0.5, "positive": 0.5}
    assert Classification("r", "fake", tie, 3, truncated=False).sentiment == "negative"


def test_classification_is_frozen() -> None:
    classification = Classification("r", "fake", {"positive": 1.0}, 3, truncated=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        classification.revision = "other"  # type: ignore[misc]
