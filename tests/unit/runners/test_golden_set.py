"""A model that does not answer as it did when it was saved does not get to serve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.types import Classification, Sentiment
from runners.golden_set import FILE, TEXTS, fault, read_golden_set, write_canary


class Model:
    """Sure of every text by its length; `shift` moves its probabilities."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def __call__(self, texts: Sequence[str]) -> list[Classification]:
        return [answer(0.95 - self.shift if len(text) % 2 else 0.05 + self.shift) for text in texts]


def answer(positive: float, **more: float) -> Classification:
    scores: dict[Sentiment, float] = {"negative": 1 - positive, "positive": positive}
    return Classification("r", "fake", scores | more, 1, truncated=False)  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_canary(tmp_path, Model())
    return tmp_path


def test_what_answers_as_before_passes(saved: Path) -> None:
    assert fault(Model(), read_golden_set(saved)) is None
    assert fault(Model(shift=0.01), read_golden_set(saved)) is None


def test_what_says_the_opposite_does_not(saved: Path) -> None:
    told = fault(Model(shift=0.9), read_golden_set(saved))
    assert told is not None
    assert f"of {len(TEXTS)} of {len(TEXTS)} texts" in told
    assert "'Wonderful.'" in told


def test_one_text_that_is_answered_otherwise_is_enough(saved: Path) -> None:
    def classify(texts: Sequence[str]) -> list[Classification]:
        return [
            answer(1 - one.scores["positive"]) if number == 7 else one
            for number, one in enumerate(Model()(texts))
        ]

    told = fault(classify, read_golden_set(saved))
    assert told is not None
    assert "of 1 of" in told


def test_probabilities_may_not_wander(saved: Path) -> None:
    told = fault(Model(shift=0.1), read_golden_set(saved))
    assert told is not None
    assert "differ by 0.100" in told


def test_what_was_not_sure_may_change_its_mind(tmp_path: Path) -> None:
    write_canary(tmp_path, lambda texts: [answer(0.51) for _ in texts])
    assert fault(lambda texts: [answer(0.49) for _ in texts], read_golden_set(tmp_path)) is None


def test_other_classes_are_told(saved: Path) -> None:
    told = fault(lambda texts: [answer(0.9, neutral=0.0) for _ in texts], read_golden_set(saved))
    assert told == "it has other classes than when it was saved"


@pytest.mark.parametrize("positive", [math.nan, math.inf, -0.1, 1.1])
@pytest.mark.parametrize("kept", [True, False])
def test_answers_must_be_probabilities(saved: Path, positive: float, kept: bool) -> None:
    canary = read_golden_set(saved) if kept else None
    told = fault(lambda texts: [answer(positive) for _ in texts], canary)
    assert told == "its answers are no probabilities"
    assert fault(lambda texts: [answer(0.9, neutral=0.5) for _ in texts], canary) is not None


def test_without_a_canary_answers_must_differ(tmp_path: Path) -> None:
    assert read_golden_set(tmp_path) is None
    assert fault(Model(), None) is None
    told = fault(lambda texts: [answer(0.7) for _ in texts], None)
    assert told == f"it says the same of {len(TEXTS)} different texts"


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"text": "x"}]', "7"])
def test_a_damaged_canary_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011  that of json, or our own
        read_golden_set(tmp_path)
