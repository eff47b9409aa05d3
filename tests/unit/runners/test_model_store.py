"""Labels are known or refused; the error for a missing model helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from bentoml.exceptions import NotFound
from hypothesis import given
from hypothesis import strategies as st

from core.types import SENTIMENTS
from runners.model_store import SENTIMENT_OF_LABEL, InvalidCheckpoint, find_model, labels_of


@pytest.mark.parametrize(
    ("id2label", "labels"),
    [
        ({"0": "NEGATIVE", "1": "POSITIVE"}, ("negative", "positive")),
        ({"0": "pos", "1": "neg"}, ("positive", "negative")),
        ({"1": "neutral", "0": "positive", "2": "negative"}, ("positive", "neutral", "negative")),
    ],
)
def test_labels_keep_the_order_of_the_outputs(
    id2label: dict[str, str], labels: tuple[str, ...]
) -> None:
    assert labels_of({"id2label": id2label}) == labels


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no id2label"),
        ({"id2label": None}, "no id2label"),
        ({"id2label": {}}, "no id2label"),
        ({"id2label": ["negative", "positive"]}, "has a list as id2label"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "unknown labels"),
        ({"id2label": {"0": "1 star", "1": "5 stars"}}, "unknown labels"),
        ({"id2label": {"0": None, "1": "positive"}}, "unknown labels"),
        ({"id2label": {"0": "negative", "2": "positive"}}, "number its classes"),
        ({"id2label": {"1": "negative", "2": "positive"}}, "number its classes"),
        ({"id2label": {"0": "negative", "00": "positive"}}, "number its classes"),
        ({"id2label": {"negative": 0, "positive": 1}}, "number its classes"),
        ({"id2label": {"0": "positive", "1": "POS"}}, "each once"),
        ({"id2label": {"0": "positive", "1": "neutral"}}, "each once"),
        ({"id2label": {"0": "negative"}}, "each once"),
    ],
)
def test_unknown_or_ambiguous_labels_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        labels_of(config)


@given(
    st.dictionaries(
        st.integers(-1, 3).map(str) | st.text(max_size=3),
        st.sampled_from(sorted(SENTIMENT_OF_LABEL)) | st.text(max_size=5) | st.none(),
        max_size=4,
    )
)
def test_any_id2label_gives_distinct_sentiments_or_a_reason(id2label: dict[str, object]) -> None:
    try:
        labels = labels_of({"id2label": id2label})
    except InvalidCheckpoint as error:
        assert str(error)
    else:
        assert len(labels) == len(set(labels)) == len(id2label)
        assert {"negative", "positive"} <= set(labels) <= set(SENTIMENTS)


def test_missing_model_raises_an_error_that_says_how_to_save_it(model_store: Path) -> None:
    with pytest.raises(NotFound, match=r"scripts\.save_models"):
        find_model("sentiment-distilbert-v2:latest")
