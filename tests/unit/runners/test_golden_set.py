"""A model whose answers to its golden set changed may not serve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.types import Classification, Sentiment
from runners.golden_set import FILE, OLD_FILE, TEXTS, check, read_golden_set, write_golden_set


class Model:
    """Decides by the length of a text; `shift` moves its probabilities."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def __call__(self, texts: Sequence[str]) -> list[Classification]:
        return [answer(0.95 - self.shift if len(text) % 2 else 0.05 + self.shift) for text in texts]


def answer(positive: float, **more: float) -> Classification:
    scores: dict[Sentiment, float] = {"negative": 1 - positive, "positive": positive}
    return Classification("r", "fake", scores | more, 1, truncated=False)  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_golden_set(tmp_path, Model())
    return tmp_path


def test_same_answers_pass(saved: Path) -> None:
    assert check(Model(), read_golden_set(saved)) is None
    assert check(Model(shift=0.01), read_golden_set(saved)) is None


def test_opposite_answers_fail_with_an_example(saved: Path) -> None:
    error = check(Model(shift=0.9), read_golden_set(saved))
    assert error is not None
    assert f"to {len(TEXTS)} of {len(TEXTS)} texts" in error
    assert 'such as to "Wonderful."' in error


def test_one_changed_answer_fails(saved: Path) -> None:
    def infer(texts: Sequence[str]) -> list[Classification]:
        return [
            answer(1 - result.scores["positive"]) if number == 7 else result
            for number, result in enumerate(Model()(texts))
        ]

    error = check(infer, read_golden_set(saved))
    assert error is not None
    assert "to 1 of" in error


def test_probabilities_that_differ_too_much_on_average_fail(saved: Path) -> None:
    error = check(Model(shift=0.1), read_golden_set(saved))
    assert error is not None
    assert "differ by 0.100" in error


def test_answer_without_confidence_may_change(tmp_path: Path) -> None:
    write_golden_set(tmp_path, lambda texts: [answer(0.51) for _ in texts])
    assert check(lambda texts: [answer(0.49) for _ in texts], read_golden_set(tmp_path)) is None


def test_other_classes_fail(saved: Path) -> None:
    error = check(lambda texts: [answer(0.9, neutral=0.0) for _ in texts], read_golden_set(saved))
    assert error == "it has other classes than when it was saved"


@pytest.mark.parametrize("positive", [math.nan, math.inf, -0.1, 1.1])
@pytest.mark.parametrize("is_saved", [True, False])
def test_scores_that_are_not_probabilities_fail(
    saved: Path, positive: float, is_saved: bool
) -> None:
    golden_set = read_golden_set(saved) if is_saved else None
    error = check(lambda texts: [answer(positive) for _ in texts], golden_set)
    assert error == "its scores are not probabilities"
    assert check(lambda texts: [answer(0.9, neutral=0.5) for _ in texts], golden_set) is not None


def test_equal_scores_for_all_texts_fail_without_a_golden_set(tmp_path: Path) -> None:
    assert read_golden_set(tmp_path) is None
    assert check(Model(), None) is None
    error = check(lambda texts: [answer(0.7) for _ in texts], None)
    assert error == f"it gives the same scores to {len(TEXTS)} different texts"


def test_file_with_the_old_name_is_read_where_only_that_exists(saved: Path) -> None:
    golden_set = read_golden_set(saved)
    assert golden_set is not None
    (saved / FILE).rename(saved / OLD_FILE)
    assert read_golden_set(saved) == golden_set
    write_golden_set(saved, Model(shift=0.2))
    assert read_golden_set(saved) != golden_set


@pytest.mark.parametrize("file", [FILE, OLD_FILE])
@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"text": "x"}]', "7", "[" * 9_000])
def test_damaged_golden_set_is_an_error(tmp_path: Path, content: str, file: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011  that of json, or our own
        read_golden_set(tmp_path)
