"""The entropy of a prediction's scores, as PostgreSQL computes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from stats.entropy import entropy_sql
from tests.unit.stats.postgres_arithmetic import evaluate

SCORES = ("score_negative", "score_neutral", "score_positive")


@pytest.mark.parametrize(
    ("scores", "bits"),
    [
        ((0.5, None, 0.5), 1.0),
        ((1.0, None, 0.0), 0.0),
        ((0.25, None, 0.75), 0.811278),
        ((1 / 3, 1 / 3, 1 / 3), 1.584963),
        ((0.0, 1.0, 0.0), 0.0),
    ],
)
def test_entropy_of_known_scores(scores: tuple[float | None, ...], bits: float) -> None:
    row = dict(zip(SCORES, scores, strict=True))
    assert evaluate(entropy_sql(SCORES), **row) == pytest.approx(bits, abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 1))
def test_entropy_equals_that_of_scipy(first: float, second: float) -> None:
    scores = [first, (1 - first) * second, (1 - first) * (1 - second)]
    row = dict(zip(SCORES, scores, strict=True))
    plain = entropy(scores, base=2)
    assert evaluate(entropy_sql(SCORES), **row) == pytest.approx(plain, abs=1e-9)


@given(st.floats(0, 1))
def test_class_that_the_checkpoint_lacks_adds_no_entropy(positive: float) -> None:
    row = {"score_negative": 1 - positive, "score_neutral": None, "score_positive": positive}
    plain = entropy([1 - positive, positive], base=2)
    assert evaluate(entropy_sql(SCORES), **row) == pytest.approx(plain, abs=1e-9)
