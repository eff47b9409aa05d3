"""Value types: what follows from what they hold."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import SENTIMENTS, Classification, Sentiment

SCORES = st.dictionaries(st.sampled_from(SENTIMENTS), st.floats(0, 1), min_size=1)


@given(SCORES)
def test_the_sentiment_is_the_class_of_the_highest_score(scores: dict[Sentiment, float]) -> None:
    made = Classification("r", "fake", scores, 3, truncated=False)
    assert made.confidence == max(scores.values()) == scores[made.sentiment]


def test_a_tie_goes_to_the_class_that_the_checkpoint_has_first() -> None:
    tie: dict[Sentiment, float] = {"negative": 0.5, "positive": 0.5}
    assert Classification("r", "fake", tie, 3, truncated=False).sentiment == "negative"


def test_a_classification_does_not_change() -> None:
    made = Classification("r", "fake", {"positive": 1.0}, 3, truncated=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.revision = "other"  # type: ignore[misc]
