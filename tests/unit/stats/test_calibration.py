"""Reliability, calibration error, and accuracy estimated without labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.calibration import (
    calibration,
    reliability_curve,
)
from stats.drift import drift_of_cells
from stats.estimated_accuracy import ConfidenceBin, caveat_of, estimate_accuracy
from stats.outcomes import LabelledBin

Values = NDArray[np.float64]
SCORES = ("score_negative", "score_neutral", "score_positive")


def labelled(confidence: Values, right: NDArray[np.bool_]) -> dict[int, LabelledBin]:
    numbers = np.minimum(np.floor(confidence * 50), 49).astype(np.intp)
    columns = [np.bincount(numbers, weights) for weights in (None, confidence, right)]
    return {
        number: LabelledBin(int(count), float(confidence_sum), int(correct))
        for number, (count, confidence_sum, correct) in enumerate(zip(*columns, strict=True))
        if count
    }


def unlabelled(confidence: Values) -> dict[int, ConfidenceBin]:
    parts = labelled(confidence, np.zeros(len(confidence), dtype=np.bool_))
    return {
        number: ConfidenceBin(part.count, part.confidence_sum) for number, part in parts.items()
    }


def overconfident(confidence: Values) -> Values:
    """How often such a model is right: 0.5 of the time at 0.5, 0.85 of it at 1."""
    return 0.5 + 0.7 * (confidence - 0.5)


def usual(random: np.random.Generator, size: int) -> Values:
    return 0.5 + 0.5 * random.beta(6, 1.5, size)


def drifted(random: np.random.Generator, size: int) -> Values:
    return 0.5 + 0.5 * random.beta(2, 3, size)


@st.composite
def labelled_bins(draw: st.DrawFn, fewest: int = 1) -> dict[int, LabelledBin]:
    bins = {}
    for number in draw(st.sets(st.integers(0, 49), max_size=20)):
        count = draw(st.integers(fewest, 5000))
        place = draw(st.floats(0, 0.99))
        right = draw(st.integers(0, count))
        bins[number] = LabelledBin(count, count * (number + place) / 50, right)
    return bins


def test_calibration_of_a_worked_example() -> None:
    found = calibration({49: LabelledBin(60, 59.4, 48), 35: LabelledBin(40, 28.0, 32)})
    assert found is not None
    assert found.count == 100
    assert found.accuracy == pytest.approx(0.8)
    assert found.mean_confidence == pytest.approx(0.874)
    # 0.6 |0.8 - 0.99| + 0.4 |0.8 - 0.7|
    assert found.error == pytest.approx(0.154)
    assert [(point.count, point.accuracy) for point in found.curve] == [(40, 0.8), (60, 0.8)]
    assert [point.mean_confidence for point in found.curve] == pytest.approx([0.7, 0.99])


def test_calibration_error_equals_its_definition_over_single_predictions() -> None:
    random = np.random.default_rng(20)
    confidence = usual(random, 4000)
    right = random.random(4000) < overconfident(confidence)
    tenths = np.floor(confidence * 10)
    expected = sum(
        np.mean(tenths == tenth)
        * abs(right[tenths == tenth].mean() - confidence[tenths == tenth].mean())
        for tenth in np.unique(tenths)
    )
    found = calibration(labelled(confidence, right))
    assert found is not None
    assert found.error == pytest.approx(expected)
    assert found.error > 3 * found.error_noise


def test_error_of_a_calibrated_model_equals_the_noise() -> None:
    random = np.random.default_rng(21)
    errors, noises = [], []
    for _ in range(300):
        confidence = usual(random, 400)
        found = calibration(labelled(confidence, random.random(400) < confidence))
        assert found is not None
        errors.append(found.error)
        noises.append(found.error_noise)
    assert np.mean(errors) == pytest.approx(np.mean(noises), rel=0.1)


@given(labelled_bins())
def test_calibration_stays_within_its_ranges(bins: dict[int, LabelledBin]) -> None:
    found = calibration(bins)
    if not bins:
        assert found is None
        return
    assert found is not None
    for share in (found.accuracy, found.mean_confidence, found.error, found.error_noise):
        assert 0 <= share <= 1
    # The error bounds how far confidence is off as a whole.
    assert abs(found.accuracy - found.mean_confidence) <= found.error + 1e-12
    assert sum(point.count for point in found.curve) == found.count
    for point in found.curve:
        assert 0 <= point.accuracy_low <= point.accuracy <= point.accuracy_high <= 1


def test_accuracy_interval_is_that_of_jeffreys() -> None:
    none, some, every = reliability_curve(
        [LabelledBin(10, 9.0, 0), LabelledBin(10, 9.0, 3), LabelledBin(10, 9.0, 10)]
    )
    # Brown, Cai, DasGupta 2001: 3 of 10 in (0.093, 0.606).
    assert (some.accuracy_low, some.accuracy_high) == pytest.approx((0.0927, 0.6058), abs=1e-4)
    assert none.accuracy_low == 0
    assert every.accuracy_high == 1
    assert none.accuracy_high == pytest.approx(1 - every.accuracy_low)


@pytest.mark.parametrize("bins", [{}, {10: LabelledBin(0, 0.0, 0)}])
def test_calibration_without_labels_is_none(bins: dict[int, LabelledBin]) -> None:
    assert calibration(bins) is None
    assert estimate_accuracy(bins, {49: ConfidenceBin(3, 2.95)}) is None


@pytest.mark.parametrize("part", [LabelledBin(3, 2.9, 4), LabelledBin(-1, 0.0, -1)])
def test_impossible_counts_are_refused(part: LabelledBin) -> None:
    with pytest.raises(ValueError, match="correct predictions"):
        calibration({49: part, 30: LabelledBin(10, 6.1, 5)})
    with pytest.raises(ValueError, match="correct predictions"):
        estimate_accuracy({49: part}, {49: ConfidenceBin(3, 2.95)})


def test_estimate_of_a_worked_example() -> None:
    reference = {49: LabelledBin(100, 99.0, 90), 30: LabelledBin(100, 61.0, 60)}
    found = estimate_accuracy(reference, {49: ConfidenceBin(30, 29.7), 40: ConfidenceBin(10, 8.0)})
    assert found is not None
    # Half way between the knots at 0.61 and 0.99 a prediction is right 0.75 of the time.
    assert found.accuracy == pytest.approx((30 * 0.9 + 10 * 0.75) / 40)
    assert found.sampling_error == pytest.approx(math.sqrt(30 * 0.9 * 0.1 + 10 * 0.75 * 0.25) / 40)
    # Levels 0.9 and 0.6, smoothed to 90.5/101 and 60.5/101, weigh 35/40 and 5/40.
    assert found.calibration_error == pytest.approx(
        math.sqrt(
            (35 / 40) ** 2 * 90.5 * 10.5 / 101**2 / 100 + (5 / 40) ** 2 * 60.5 * 40.5 / 101**2 / 100
        )
    )
    assert (found.count, found.labelled_count, found.supported) == (40, 200, 0.75)
    reach = 1.959964 * math.hypot(found.sampling_error, found.calibration_error)
    assert found.low == pytest.approx(found.accuracy - reach)
    assert found.high == pytest.approx(min(found.accuracy + reach, 1))


def half(right: int, of: int = 150) -> dict[int, LabelledBin]:
    return {40: LabelledBin(of, of * 0.81, right), 49: LabelledBin(of, of * 0.99, right)}


def test_weighted_labels_cause_no_more_caveats_than_others() -> None:
    """As of a review queue, which draws some of many; 1 % of windows look wrong by chance."""
    chance = np.random.default_rng(11)

    def drawn(weight: float) -> dict[int, LabelledBin]:
        right = int(chance.binomial(200, 0.9))
        return {45: LabelledBin(200 * weight, 180 * weight, right * weight, 200, 200 * weight**2)}

    same = {"positive": 500, "negative": 500}
    sentiments = drift_of_cells(list(same.values()), list(same.values()))
    caveats = 0
    for _ in range(300):
        earlier, later = drawn(20.0), drawn(20.0)
        estimate = estimate_accuracy({45: earlier[45] + later[45]}, {45: ConfidenceBin(1, 0.9)})
        assert estimate is not None
        caveats += caveat_of(estimate, earlier, later, sentiments) is not None
    assert caveats <= 10


@pytest.mark.parametrize(
    ("earlier", "later", "current", "drifted", "caveat"),
    [
        (half(120), half(121), {40: 50}, False, None),
        (half(12, 20), half(12, 20), {40: 50}, False, "80 labels"),
        (half(140), half(100), {40: 50}, False, "by its labels in 66.7%"),
        (half(120), {}, {40: 50}, False, "one half"),
        (half(120), half(121), {40: 50, 30: 20}, False, "29% of the predictions"),
        (half(120), half(121), {40: 50}, True, "sentiments are others"),
    ],
)
def test_estimate_says_why_it_is_not_to_be_trusted(
    earlier: dict[int, LabelledBin],
    later: dict[int, LabelledBin],
    current: dict[int, int],
    drifted: bool,
    caveat: str | None,
) -> None:
    none = LabelledBin(0, 0.0, 0)
    reference = {number: earlier[number] + later.get(number, none) for number in earlier}
    bins = {number: ConfidenceBin(count, count * 0.8) for number, count in current.items()}
    estimate = estimate_accuracy(reference, bins)
    assert estimate is not None
    before = {"positive": 500, "negative": 500}
    now = {"positive": 900, "negative": 100} if drifted else before
    sentiments = drift_of_cells(list(before.values()), list(now.values()))
    found = caveat_of(estimate, earlier, later, sentiments)
    assert found is caveat if caveat is None else caveat in (found or "")


def test_accuracy_that_falls_with_confidence_is_pooled() -> None:
    reference = {30: LabelledBin(50, 30.5, 45), 49: LabelledBin(150, 148.5, 75)}
    found = estimate_accuracy(reference, {30: ConfidenceBin(10, 6.1), 49: ConfidenceBin(10, 9.9)})
    assert found is not None
    assert found.accuracy == pytest.approx(120 / 200)


@given(labelled_bins(fewest=10))
def test_estimate_for_the_reference_itself_is_its_accuracy(
    bins: dict[int, LabelledBin],
) -> None:
    current = {
        number: ConfidenceBin(part.count, part.confidence_sum) for number, part in bins.items()
    }
    found = estimate_accuracy(bins, current)
    if not bins:
        assert found is None
        return
    assert found is not None
    right = sum(part.correct for part in bins.values())
    assert found.accuracy == pytest.approx(right / found.labelled_count, abs=1e-9)
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    assert found.supported == 1


def test_bin_of_few_labels_is_joined_with_the_next() -> None:
    many = LabelledBin(100, 99.0, 90)
    wrong = LabelledBin(9, 5.4, 0)
    current = {30: ConfidenceBin(10, 6.0)}
    one_more = estimate_accuracy({30: wrong + LabelledBin(1, 0.6, 0), 49: many}, current)
    joined = estimate_accuracy({30: wrong, 49: many}, current)
    last = estimate_accuracy({30: LabelledBin(9, 5.4, 9), 20: many}, current)
    assert one_more is not None
    assert joined is not None
    assert last is not None
    assert one_more.accuracy == 0
    assert joined.accuracy == pytest.approx(90 / 109)
    assert last.accuracy == pytest.approx(99 / 109)
    assert joined.supported == 1


@given(labelled_bins(), labelled_bins(), st.floats(0, 1))
def test_estimate_lies_between_the_least_and_the_greatest_accuracy(
    reference: dict[int, LabelledBin], seen: dict[int, LabelledBin], place: float
) -> None:
    current = {
        number: ConfidenceBin(part.count, part.count * (number + place) / 50)
        for number, part in seen.items()
    }
    found = estimate_accuracy(reference, current)
    if found is None:
        assert not reference or not current
        return
    shares = [part.correct / part.count for part in reference.values()]
    assert min(shares) - 1e-9 <= found.accuracy <= max(shares) + 1e-9
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    assert 0 <= found.supported <= 1


def test_estimate_without_predictions_is_none() -> None:
    assert estimate_accuracy({49: LabelledBin(5, 4.9, 5)}, {}) is None
    assert estimate_accuracy({49: LabelledBin(5, 4.9, 5)}, {3: ConfidenceBin(0, 0.0)}) is None


def test_negative_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        estimate_accuracy({49: LabelledBin(5, 4.9, 5)}, {49: ConfidenceBin(-5, -4.9)})


def test_few_labels_that_are_all_right_leave_an_interval() -> None:
    found = estimate_accuracy({49: LabelledBin(5, 4.9, 5)}, {49: ConfidenceBin(10**12, 9.9e11)})
    assert found is not None
    assert found.accuracy == 1
    assert found.high == 1
    assert found.low < 0.8


@pytest.mark.parametrize("current", [usual, drifted])
@pytest.mark.parametrize(("labels", "predictions"), [(4000, 2000), (1000, 20_000)])
def test_estimate_follows_a_miscalibrated_model_whose_inputs_drift(
    current: Callable[[np.random.Generator, int], Values], labels: int, predictions: int
) -> None:
    random = np.random.default_rng(22)
    inside, errors, naive = [], [], []
    for _ in range(100):
        confidence = usual(random, labels)
        reference = labelled(confidence, random.random(labels) < overconfident(confidence))
        seen = current(random, predictions)
        truth = float(np.mean(random.random(predictions) < overconfident(seen)))
        found = estimate_accuracy(reference, unlabelled(seen))
        assert found is not None
        inside.append(found.low <= truth <= found.high)
        errors.append(found.accuracy - truth)
        naive.append(float(seen.mean()) - truth)
    assert np.mean(inside) >= 0.9
    assert abs(np.mean(errors)) < 0.02
    # Confidence as the model tells it is off by far more.
    assert np.mean(naive) > 0.05


def test_estimate_does_not_see_concept_drift() -> None:
    random = np.random.default_rng(23)
    confidence = usual(random, 5000)
    reference = labelled(confidence, random.random(5000) < overconfident(confidence))
    seen = usual(random, 5000)
    truth = float(np.mean(random.random(5000) < overconfident(seen) - 0.2))
    found = estimate_accuracy(reference, unlabelled(seen))
    assert found is not None
    assert found.low > truth + 0.1
