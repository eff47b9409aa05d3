"""What texts are like, and the drift of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from loadtest.simulation.drift import Rows, Scenario, simulate, texts_of
from models.starter.reproduction import TEXTS_FILE
from stats.content import CONTENT_FEATURES, SKETCH_VALUES, ContentSketch, describe
from stats.content_drift import Texts, content_drift, largest_contributions

GERMAN = (
    "Der Film war viel zu lang und leider auch nicht besonders spannend.",
    "Ich habe mich von der ersten bis zur letzten Minute gelangweilt.",
    "Das Zimmer war sauber, aber die Betten sind furchtbar unbequem.",
    "Wir würden jederzeit wieder hierherkommen, vielen Dank!",
)


def features(text: str, tokens: int) -> dict[str, float]:
    return dict(zip(CONTENT_FEATURES, describe(text, tokens), strict=True))


def test_features_of_a_worked_example() -> None:
    found = features("Größe 38: don't!", 12)
    assert found["tokens_per_word"] == 4  # ten of two words, bounded
    assert found["words"] == pytest.approx(math.log(2))
    assert found["word_length"] == 5  # the apostrophe is part of the word
    assert found["accented_letters"] == 0.2  # two of ten
    assert found["digits"] == pytest.approx(2 / 16)
    assert found["capitals"] == 0.1
    assert found["punctuation"] == pytest.approx(3 / 16)
    assert features("очень хорошо", 10)["other_scripts"] == 1


@pytest.mark.parametrize("text", ["", "!!!", "42", "😀" * 50, "x" * 5_000])
def test_features_of_any_text_are_finite(text: str) -> None:
    assert all(math.isfinite(value) for value in describe(text, 2))


def test_sketches_add_up_to_means_and_scatter() -> None:
    rows = np.random.default_rng(3).random((90, len(CONTENT_FEATURES)))
    parts = [ContentSketch(), ContentSketch()]
    for number, row in enumerate(rows.tolist()):
        parts[number % 2].add(row)
    whole = Texts.of([part.to_bytes() for part in parts] + [b"of another release"])
    assert whole.count == 90
    assert whole.means == pytest.approx(rows.mean(axis=0))
    assert whole.scatter / 89 == pytest.approx(np.cov(rows.T))
    assert len(parts[0].to_bytes()) == 8 * SKETCH_VALUES


def test_distance_is_that_of_mahalanobis() -> None:
    random = np.random.default_rng(4)
    # Deviations of 30, beside which those that are added are nothing.
    before, now = random.normal(0, 30, (2, 500, len(CONTENT_FEATURES)))
    now[:, 0] += 15
    found = content_drift(texts_of(before), texts_of(now))
    pooled = (np.cov(before.T) + np.cov(now.T)) / 2
    moved = now.mean(axis=0) - before.mean(axis=0)
    assert found.distance == pytest.approx(moved @ np.linalg.solve(pooled, moved), rel=1e-3)
    assert found.features[0].name == "tokens_per_word"
    assert found.features[0].shift == pytest.approx(0.5, abs=0.1)
    assert found.verdict == "significant"


def test_windows_of_nothing_have_no_distance() -> None:
    found = content_drift(Texts.of([]), Texts.of([]))
    assert (found.distance, found.noise, found.verdict, found.features) == (
        None, None, "too_few", [],
    )  # fmt: skip


def test_contributions_of_the_texts_of_a_window_have_the_distance_as_mean() -> None:
    random = np.random.default_rng(7)
    before, now = random.normal(0, 1, (2, 400, len(CONTENT_FEATURES)))
    now[:30, 5] += 5
    drift = content_drift(texts_of(before), texts_of(now))
    found = largest_contributions(texts_of(before), texts_of(now), now.tolist(), 400)
    direction = np.linalg.solve(
        (np.cov(before.T) + np.cov(now.T)) / 2
        + np.diag([0.05, 0.1, 0.2, 0.05, 0.05, 0.02, 0.02, 0.02]) ** 2,
        now.mean(axis=0) - before.mean(axis=0),
    )
    sums = (now - before.mean(axis=0)) @ direction
    assert sums.mean() == pytest.approx(drift.distance)
    assert [one.text for one in found] == np.argsort(-sums)[: (sums > 0).sum()].tolist()
    assert found[0].contribution == pytest.approx(sums.max())
    assert {one.text for one in found[:10]} <= set(range(30))
    assert found[0].features[0] == "digits"


@pytest.fixture(scope="module")
def described() -> dict[str, Rows]:
    """The 300 texts of the golden sets, and German; a word of German has twice as many tokens."""
    lines = TEXTS_FILE.read_text(encoding="utf-8").splitlines()
    english = [json.loads(line)["text"] for line in lines]
    return {
        "english": np.array([describe(text, 3 + len(text.split())) for text in english]),
        "german": np.array([describe(text, 2 + 2 * len(text.split())) for text in GERMAN * 25]),
    }


@pytest.mark.parametrize("window", [30, 100])
def test_texts_without_drift_are_seldom_called_drift(
    described: dict[str, Rows], window: int
) -> None:
    scenario = Scenario("equal", "english")
    found = simulate(scenario, described, window, comparisons=150, seed=5, reference=200)
    assert found.called <= 3


def test_part_in_another_language_is_seen(described: dict[str, Rows]) -> None:
    scenario = Scenario("German", "english", "german", 0.2)
    assert simulate(scenario, described, 100, comparisons=20, seed=6, reference=200).share == 1


def test_texts_that_moved_most_are_those_in_another_language(described: dict[str, Rows]) -> None:
    english, german = described["english"], described["german"]
    now = np.concatenate([english[200:280], german[:20]])
    found = largest_contributions(texts_of(english[:200]), texts_of(now), now.tolist(), 10)
    assert [one.text for one in found if one.text < 80] == []
