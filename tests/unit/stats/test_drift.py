"""Population stability index, Jensen-Shannon divergence, and the verdicts on drift."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm

from stats.drift import (
    MODERATE_PSI,
    drift_of_bins,
    drift_of_cells,
    drift_report,
    jensen_shannon_divergence,
    population_stability_index,
    quantile_cuts,
)
from stats.histogram import CONFIDENCE, TEXT_CHARACTERS
from stats.outcomes import Profile
from stats.results import DriftVerdict, FeatureDrift

COUNTS = st.integers(0, 10**12)
PAIRS = st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=12).filter(
    lambda pairs: any(left for left, _ in pairs) and any(right for _, right in pairs)
)
HISTOGRAMS = st.dictionaries(st.integers(-50, 50), st.integers(1, 10_000), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [left for left, _ in pairs], [right for _, right in pairs]


def lengths(values: NDArray[np.float64]) -> dict[int, int]:
    return dict(Counter(TEXT_CHARACTERS.bin_of(value) for value in values.tolist()))


def test_psi_of_a_worked_example() -> None:
    # (0.6 - 0.5) ln(0.6/0.5) + (0.3 - 0.3) ln 1 + (0.1 - 0.2) ln(0.1/0.2)
    expected = 0.1 * math.log(1.2) + 0.1 * math.log(2)
    assert population_stability_index([50, 30, 20], [600, 300, 100]) == pytest.approx(expected)


def test_psi_of_an_empty_cell_counts_half_a_value() -> None:
    # Of 99 + 0.5: shares 0.5 and 0.5 against 198/199 and 1/199.
    expected = 2 * (198 / 199 - 0.5) * math.log(198) / 2
    assert population_stability_index([50, 50], [99, 0]) == pytest.approx(expected)


def test_divergence_of_worked_examples() -> None:
    assert jensen_shannon_divergence([1, 0], [0, 7]) == 1
    # Shares (1, 0) and (1/2, 1/2): H(3/4) - 1/2 in bits.
    mixture = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon_divergence([4, 0], [5, 5]) == pytest.approx(mixture - 0.5)


@given(PAIRS)
def test_divergence_is_the_square_of_scipys_distance(pairs: list[tuple[int, int]]) -> None:
    reference, current = columns(pairs)
    found = jensen_shannon_divergence(reference, current)
    with np.errstate(invalid="ignore"):
        distance = float(jensenshannon(reference, current, base=2))
    expected = 0.0 if math.isnan(distance) else distance**2
    assert found == pytest.approx(expected, abs=1e-12)


@given(PAIRS)
def test_psi_and_divergence_are_symmetric_and_within_their_ranges(
    pairs: list[tuple[int, int]],
) -> None:
    reference, current = columns(pairs)
    psi = population_stability_index(reference, current)
    divergence = jensen_shannon_divergence(reference, current)
    assert psi is not None
    assert divergence is not None
    assert 0 <= psi < math.inf
    assert 0 <= divergence <= 1
    assert population_stability_index(current, reference) == pytest.approx(psi, abs=1e-12)
    assert jensen_shannon_divergence(current, reference) == pytest.approx(divergence, abs=1e-12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_of_cells_does_not_change_the_drift(
    pairs: list[tuple[int, int]], random: Random
) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for statistic in (population_stability_index, jensen_shannon_divergence):
        assert statistic(*columns(shuffled)) == pytest.approx(statistic(*columns(pairs)), abs=1e-12)


@given(st.lists(COUNTS, min_size=1, max_size=12).filter(any), st.integers(1, 1000))
def test_psi_and_divergence_are_0_for_equal_shares_of_any_size(
    counts: list[int], scale: int
) -> None:
    larger = [scale * count for count in counts]
    assert population_stability_index(counts, counts) == 0
    assert jensen_shannon_divergence(counts, counts) == 0
    assert population_stability_index(counts, larger) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon_divergence(counts, larger) == pytest.approx(0, abs=1e-12)


def test_small_drift_is_about_as_large_in_both_measures() -> None:
    reference, current = [4000, 3000, 3000], [4300, 2900, 2800]
    psi = population_stability_index(reference, current)
    divergence = jensen_shannon_divergence(reference, current)
    assert psi is not None
    assert divergence == pytest.approx(psi / (8 * math.log(2)), rel=0.01)


def test_cells_that_are_empty_on_both_sides_change_nothing() -> None:
    assert drift_of_cells([700, 0, 300], [600, 0, 400]) == drift_of_cells([700, 300], [600, 400])


@pytest.mark.parametrize(
    ("reference", "current"), [([], []), ([0, 0], [0, 0]), ([5, 5], [0, 0]), ([0, 0], [1, 2])]
)
def test_window_without_predictions_has_no_drift(reference: list[int], current: list[int]) -> None:
    drift = drift_of_cells(reference, current)
    assert (drift.psi, drift.psi_noise, drift.js_divergence) == (None, None, None)
    assert drift.verdict == "too_few"


def test_impossible_counts_are_refused() -> None:
    for statistic in (population_stability_index, jensen_shannon_divergence, drift_of_cells):
        with pytest.raises(ValueError, match="negative"):
            statistic([5, -1], [1, 1])
        with pytest.raises(ValueError, match="shorter"):
            statistic([5, 1], [1])


@pytest.mark.parametrize(
    ("current", "verdict"),
    [
        ([5000, 5000], "stable"),
        ([6500, 3500], "stable"),  # PSI 0.093
        ([6600, 3400], "moderate"),  # 0.106
        ([7150, 2850], "moderate"),  # 0.198
        ([7200, 2800], "significant"),  # 0.208
        ([10_000, 0], "significant"),
    ],
)
def test_verdict_changes_at_the_psi_thresholds(current: list[int], verdict: DriftVerdict) -> None:
    assert drift_of_cells([5000, 5000], current).verdict == verdict


@pytest.mark.parametrize(("cells", "enough"), [(1, 133), (2, 133), (3, 185), (10, 434)])
def test_verdict_is_too_few_where_noise_could_look_like_drift(cells: int, enough: int) -> None:
    def of(size: int) -> FeatureDrift:
        counts = [size - (cells - 1)] + [1] * (cells - 1)
        return drift_of_cells(counts, counts)

    assert of(enough).verdict == "stable"
    assert of(enough - 1).verdict == "too_few"


@pytest.mark.parametrize(
    ("reference", "current", "verdict"),
    [
        # PSI 0.24 where 1 % of comparisons without drift exceed 0.14, and 0.1 % 0.18.
        ([30] * 10, [5, 40, 30, 30, 30, 30, 20, 30, 30, 60], "significant"),
        ([23] * 10, [0] * 9 + [230], "significant"),
        ([1000] * 10, [5, 20, 10, 10, 10, 10, 5, 10, 12, 12], "too_few"),  # 0.17, noise 0.22
        ([5, 5], [0, 5], "too_few"),
    ],
)
def test_drift_beyond_mark_and_noise_is_told_however_few_values_there_are(
    reference: list[int], current: list[int], verdict: DriftVerdict
) -> None:
    assert drift_of_cells(reference, current).verdict == verdict


@pytest.mark.parametrize(
    "shares", [(0.1,) * 10, (0.6, 0.39, 0.01), (0.5, 0.5), (0.97, 0.03), (0.7, *(0.03,) * 10)]
)
@pytest.mark.parametrize(("before", "now"), [(20, 20), (100, 100), (10**5, 10), (10**5, 100)])
def test_small_window_without_drift_is_called_drift_in_one_percent_at_most(
    shares: tuple[float, ...], before: int, now: int
) -> None:
    random = np.random.default_rng(14)
    alarms = sum(
        drift_of_cells(reference, current).verdict in {"moderate", "significant"}
        for reference, current in zip(
            random.multinomial(before, shares, 500).tolist(),
            random.multinomial(now, shares, 500).tolist(),
            strict=True,
        )
    )
    assert alarms <= 5


def test_large_reference_halves_the_sample_that_is_needed() -> None:
    reference = [10**9] * 10
    assert drift_of_cells(reference, [22] * 10).verdict == "stable"
    assert drift_of_cells(reference, [21] * 10).verdict == "too_few"


@pytest.mark.parametrize("shares", [(0.1,) * 10, (0.6, 0.39, 0.01), (0.5, 0.5)])
def test_psi_without_drift_is_distributed_as_documented(shares: tuple[float, ...]) -> None:
    random = np.random.default_rng(11)
    size, repetitions = 600, 2000
    drifts = [
        drift_of_cells(reference, current)
        for reference, current in zip(
            random.multinomial(size, shares, repetitions).tolist(),
            random.multinomial(size, shares, repetitions).tolist(),
            strict=True,
        )
    ]
    measured = [drift.psi for drift in drifts if drift.psi is not None]
    passed = sum(drift.psi > drift.psi_noise for drift in drifts if drift.psi and drift.psi_noise)
    assert np.mean(measured) == pytest.approx((len(shares) - 1) * 2 / size, rel=0.1)
    assert passed / repetitions == pytest.approx(0.01, abs=0.008)
    assert {drift.verdict for drift in drifts} <= {"stable", "moderate"}


def test_sample_above_the_minimum_seldom_raises_a_false_alarm() -> None:
    random = np.random.default_rng(12)
    verdicts: Counter[DriftVerdict] = Counter()
    for _ in range(400):
        reference, current = random.lognormal(4, 1, (2, 500))
        verdicts[drift_of_bins(lengths(reference), lengths(current)).verdict] += 1
    assert verdicts.keys() <= {"stable", "moderate"}
    assert verdicts["moderate"] <= 8


def test_many_even_bins_are_joined_into_ten_cells() -> None:
    reference = dict.fromkeys(range(100), 7)
    assert quantile_cuts(reference) == [9, 19, 29, 39, 49, 59, 69, 79, 89]


def test_heavy_bin_is_a_separate_cell() -> None:
    reference = {30: 5, 40: 10, 49: 985}
    assert quantile_cuts(reference) == [48, 49]
    # Joined with its neighbours, the last bin would hide this.
    moved = drift_of_bins(reference, {30: 400, 49: 600})
    assert moved.verdict == "significant"
    assert moved.cells == 2


def test_values_that_leave_the_only_bin_are_drift() -> None:
    reference = {49: 1000}
    assert drift_of_bins(reference, {49: 5000}).verdict == "stable"
    for left in ({48: 1000}, {50: 1000}):
        drift = drift_of_bins(reference, left)
        assert drift.verdict == "significant"
        assert drift.js_divergence == 1


def test_neighbouring_heavy_bins_are_separate_cells() -> None:
    assert quantile_cuts({1: 50, 2: 50}) == [0, 1, 2]
    assert drift_of_bins({1: 500, 2: 500}, {1: 100, 2: 900}).cells == 2


@given(HISTOGRAMS, HISTOGRAMS)
def test_cells_contain_every_value(reference: dict[int, int], current: dict[int, int]) -> None:
    drift = drift_of_bins(reference, current)
    assert drift.reference_count == sum(reference.values())
    assert drift.current_count == sum(current.values())
    assert drift.cells <= 21 + 20


@given(HISTOGRAMS)
def test_cells_are_heavy_bins_or_hold_a_fifth_at_most(reference: dict[int, int]) -> None:
    total = sum(reference.values())
    heavy = {number for number, count in reference.items() if 10 * count >= total}
    cuts = quantile_cuts(reference)
    for low, high in zip([-math.inf, *cuts], [*cuts, math.inf], strict=True):
        members = [number for number in reference if low < number <= high]
        assert len(members) == 1 or not heavy.intersection(members)
        # Two bins of less than a tenth, each half in the cell's tenth, and that tenth itself.
        assert len(members) == 1 or 5 * sum(reference[number] for number in members) < total


@given(HISTOGRAMS)
def test_histogram_does_not_drift_from_itself(counts: dict[int, int]) -> None:
    drift = drift_of_bins(counts, counts)
    assert drift.psi == 0
    assert drift.js_divergence == 0
    assert drift.verdict in {"stable", "too_few"}


def test_only_longer_texts_are_reported_as_drift() -> None:
    random = np.random.default_rng(13)
    reference = lengths(random.lognormal(4, 1, 50_000))
    same = drift_of_bins(reference, lengths(random.lognormal(4, 1, 50_000)))
    longer = drift_of_bins(reference, lengths(random.lognormal(4.6, 1, 50_000)))
    assert same.verdict == "stable"
    assert longer.verdict == "significant"
    # What deciles see of two normal logarithms, 0.6 of their deviation apart: 0.34 of 0.6^2.
    deciles = norm.cdf(norm.ppf(np.linspace(0, 1, 11)) - 0.6)
    moved = np.diff(deciles)
    assert longer.psi == pytest.approx(np.sum((moved - 0.1) * np.log(moved / 0.1)), rel=0.1)
    assert longer.cells == 10


def test_enormous_counts_keep_their_precision() -> None:
    drift = drift_of_cells([6 * 10**17, 4 * 10**17], [5 * 10**17, 5 * 10**17])
    assert drift.psi == pytest.approx(0.1 * math.log(1.2) - 0.1 * math.log(0.8))
    assert drift.psi_noise == pytest.approx(0, abs=1e-15)


def test_report_covers_inputs_and_results() -> None:
    reference = Profile(
        sentiment={"negative": 400, "positive": 600},
        confidence={CONFIDENCE.bin_of(0.99): 900, CONFIDENCE.bin_of(0.7): 100},
        text_characters=dict.fromkeys(range(20), 50),
        token_count=dict.fromkeys(range(10), 100),
    )
    current = Profile(
        sentiment={"negative": 900, "positive": 100},
        confidence=reference.confidence,
        text_characters=dict.fromkeys(range(15, 35), 50),
        token_count={3: 40},
    )
    report = drift_report(reference, current)
    assert report["sentiment"].verdict == "significant"
    assert report["sentiment"].cells == 2
    assert report["confidence"].psi == 0
    assert report["text_characters"].verdict == "significant"
    assert report["token_count"].verdict == "significant"
    assert report["token_count"].psi_noise is not None
    assert report["token_count"].psi_noise > MODERATE_PSI


def test_class_in_only_one_window_is_drift() -> None:
    binary = Profile({"negative": 500, "positive": 500}, {1: 1}, {1: 1}, {1: 1})
    ternary = Profile({"negative": 350, "neutral": 300, "positive": 350}, {1: 1}, {1: 1}, {1: 1})
    drift = drift_report(binary, ternary)["sentiment"]
    assert drift.cells == 3
    assert drift.verdict == "significant"
