"""Labels that were sampled with known probabilities give an accuracy without bias."""

from __future__ import annotations

import numpy as np
import pytest

from stats.calibration import calibration
from stats.estimated_accuracy import ConfidenceBin, estimate_accuracy
from stats.outcomes import LabelledBin

PREDICTIONS, SIZE, SAMPLES = 4_000, 100, 400
LOW_CONFIDENCE = 0.6


def traffic(numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of confidence, correctness and importance; what is important is often wrong."""
    confidence = 0.5 + numbers.beta(4, 1, PREDICTIONS) / 2
    is_disputed = numbers.random(PREDICTIONS) < 0.06
    right = numbers.random(PREDICTIONS) < np.where(is_disputed, 0.5, confidence**0.7)
    importance = 1 + 7 * is_disputed + 3 * (confidence < LOW_CONFIDENCE)
    return np.minimum(confidence * 50, 49).astype(int), right, importance


def sums(
    bins: np.ndarray, right: np.ndarray, weights: np.ndarray, *, weighted: bool
) -> dict[int, LabelledBin]:
    """What the rollups hold of the labels."""
    found: dict[int, LabelledBin] = {}
    for number in np.unique(bins):
        of_bin = bins == number
        weight, is_right = weights[of_bin], right[of_bin]
        middle = (number + 0.5) / 50
        found[int(number)] = (
            LabelledBin(
                weight.sum(), middle * weight.sum(), weight[is_right].sum(),
                int(of_bin.sum()), (weight**2).sum(),
            )
            if weighted
            else LabelledBin(int(of_bin.sum()), middle * of_bin.sum(), int(is_right.sum()))
        )  # fmt: skip
    return found


def test_weighted_accuracy_is_unbiased_and_covers_where_the_plain_one_does_neither() -> None:
    numbers = np.random.default_rng(59)
    bins, right, importance = traffic(numbers)
    probability = np.minimum(1, SIZE / importance.sum() * importance)
    truth = right.mean()
    errors: dict[bool, list[float]] = {True: [], False: []}
    covered = {True: 0, False: 0}
    for _ in range(SAMPLES):
        drawn = numbers.random(PREDICTIONS) < probability
        for weighted in (True, False):
            found = calibration(
                sums(bins[drawn], right[drawn], 1 / probability[drawn], weighted=weighted)
            )
            assert found is not None
            errors[weighted].append(found.accuracy - truth)
            covered[weighted] += found.accuracy_low <= truth <= found.accuracy_high
    # Four standard errors of the mean of the samples.
    noise = 4 * np.std(errors[True]) / SAMPLES**0.5
    assert abs(np.mean(errors[True])) < noise < 0.015
    assert np.mean(errors[False]) < -0.08
    assert covered[True] / SAMPLES > 0.94
    assert covered[False] / SAMPLES < 0.65


def test_labels_of_equal_weight_count_as_ordinary_ones() -> None:
    plain = {25: LabelledBin(10, 5.0, 6), 48: LabelledBin(30, 29.0, 28)}
    weighted = {
        number: LabelledBin(
            4 * part.count, 4 * part.confidence_sum, 4 * part.correct, int(part.count),
            16 * part.count,
        )
        for number, part in plain.items()
    }  # fmt: skip
    of_plain, of_weighted = calibration(plain), calibration(weighted)
    assert of_plain is not None
    assert of_weighted is not None
    assert not of_plain.sampled
    assert of_weighted.sampled
    assert of_weighted.model_dump(exclude={"sampled", "curve"}) == pytest.approx(
        of_plain.model_dump(exclude={"sampled", "curve"})
    )
    now = {48: ConfidenceBin(100, 97.0)}
    first, second = estimate_accuracy(plain, now), estimate_accuracy(weighted, now)
    assert first is not None
    assert second is not None
    assert second.model_dump() == pytest.approx(first.model_dump())


def test_few_heavy_labels_are_worth_fewer() -> None:
    part = LabelledBin(1, 0.9, 1, 1, 1) + LabelledBin(9, 8.1, 9, 1, 81)
    assert part.number == 2
    assert part.effective == pytest.approx(100 / 82)
