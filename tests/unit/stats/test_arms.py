"""The e-value of two arms: equal to a slow reference, a fair game, and sharp."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import betabinom, binom

from stats.arms import ArmsEvidence, log_e_at_most
from stats.outcomes import ArmOutcomes, TrafficSplit
from stats.verdict import randomised_verdict
from tests.unit.stats.e_values import COUNTS, FEW

Counts = tuple[int, int]  # right and wrong
LABELS = st.tuples(FEW, FEW)
SHARES = st.none() | st.floats(0, 1)


def reference_at(v1: Counts, v2: Counts, share: float | None, p: float, q: float) -> float:
    """Log of the mean likelihood ratio against the accuracies p and q, by SciPy's distributions."""
    (x, n), (y, m) = (v1[0], sum(v1)), (v2[0], sum(v2))
    beta = betabinom.logpmf(x, n, 30 * p, 30 * (1 - p))
    beta += betabinom.logpmf(y, m, 30 * q, 30 * (1 - q))
    logs, weights = np.array([beta]), np.array([1.0 if share is None else 0.05])
    if share is not None:
        others = [
            math.sin(math.radians(angle)) ** 2 for angle in (7.5, 22.5, 37.5, 52.5, 67.5, 82.5)
        ]
        sizes = [2.0**power for power in range(-10, 4)]
        near = math.fsum(2 / (1 + math.log(size / 0.35) ** 2) for size in sizes)
        w, s, weight = np.array(
            [
                (w, sign * size, of_share / (1 + math.log(size / 0.35) ** 2) / near)
                for w, of_share in [(share, 0.8), *((other, 0.025) for other in others)]
                for size in sizes
                for sign in (-1, 1)
            ]
        ).T
        odds_p, odds_q = p / (1 - p) * np.exp(-w * s), q / (1 - q) * np.exp(s - w * s)
        ratios = binom.logpmf(x, n, odds_p / (1 + odds_p))
        ratios += binom.logpmf(y, m, odds_q / (1 + odds_q))
        logs, weights = np.append(logs, ratios), np.append(weights, weight)
    assert weights.sum() == pytest.approx(1)
    against = binom.logpmf(x, n, p) + binom.logpmf(y, m, q)
    return float(logsumexp(logs, b=weights) - against)


@pytest.mark.parametrize(
    ("v1", "v2", "share", "difference"),
    [
        ((85, 15), (180, 20), 0.5, 0.0),
        ((855, 145), (41, 9), 0.05, 0.0),
        ((855, 145), (41, 9), 0.4, -0.07),
        ((3, 4), (9, 1), 0.5, 0.25),
        ((60, 40), (95, 5), None, 0.1),
    ],
)
def test_e_value_equals_a_slow_reference(
    v1: Counts, v2: Counts, share: float | None, difference: float
) -> None:
    low, high = max(0.0, -difference), min(1.0, 1 - difference)
    least = minimize_scalar(
        lambda p: reference_at(v1, v2, share, p, p + difference),
        bounds=(low + 1e-6, high - 1e-6), method="bounded", options={"xatol": 1e-8},
    ).fun  # fmt: skip
    assert ArmsEvidence(v1, v2, share).log_e(difference) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("share", [None, 0.0, 0.3])
@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.9, 0.9), (0.9, 0.6)])
def test_capital_at_the_true_accuracies_is_a_fair_game_and_the_e_value_is_less(
    share: float | None, p: float, q: float
) -> None:
    capital = e_value = 0.0
    for x, y in product(range(9), range(5)):
        chance = binom.pmf(x, 8, p) * binom.pmf(y, 4, q)
        v1, v2 = (x, 8 - x), (y, 4 - y)
        capital += chance * math.exp(reference_at(v1, v2, share, p, q))
        e_value += chance * math.exp(ArmsEvidence(v1, v2, share).log_e(q - p))
    assert capital == pytest.approx(1, abs=1e-9)
    assert 0 < e_value <= capital


@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.5, 0.5), (0.9, 0.9), (0.9, 0.6)])
def test_e_value_of_more_labels_is_at_most_a_fair_game(p: float, q: float) -> None:
    expected = sum(
        binom.pmf(x, 20, p)
        * binom.pmf(y, 10, q)
        * math.exp(ArmsEvidence((x, 20 - x), (y, 10 - y), 1 / 3).log_e(q - p))
        for x, y in product(range(21), range(11))
    )
    assert 0 < expected <= 1


def test_evidence_without_a_share_is_that_of_beta_mixtures() -> None:
    """One half is the likeliest equal accuracy; it gives 1/4 to each arm, the urn a little more."""
    of_an_arm = (15 / 30) * (16 / 31)
    made = ArmsEvidence((2, 0), (0, 2), None).log_e()
    assert math.exp(made) == pytest.approx((of_an_arm / 0.25) ** 2)


@settings(max_examples=50)
@given(LABELS, LABELS, SHARES, st.floats(-0.95, 0.95))
def test_search_ends_at_the_least_value_wherever_it_begins(
    v1: Counts, v2: Counts, share: float | None, difference: float
) -> None:
    evidence = ArmsEvidence(v1, v2, share)
    made = evidence.log_e(difference)
    evidence.log_e(-difference)
    assert evidence.log_e(difference) == pytest.approx(made, abs=1e-7)
    if sum(v1) and sum(v2):
        first, second = np.array(v1, float), np.array(v2, float)
        bound = log_e_at_most(first[:1], first[1:], second[:1], second[1:], difference)
        assert made <= bound[0] + 1e-9


@settings(max_examples=50)
@given(COUNTS, COUNTS, COUNTS, COUNTS, st.floats(0, 1))
def test_swapped_arms_and_swapped_labels_have_the_same_evidence(
    a: int, b: int, c: int, d: int, share: float
) -> None:
    made = ArmsEvidence((a, b), (c, d), share).log_e()
    assert math.isfinite(made)
    assert made == pytest.approx(ArmsEvidence((c, d), (a, b), 1 - share).log_e(), abs=1e-4)
    assert made == pytest.approx(ArmsEvidence((b, a), (d, c), share).log_e(), abs=1e-4)
    tilted = ArmsEvidence((a, b), (c, d), share).log_e(0.1)
    assert tilted == pytest.approx(
        ArmsEvidence((c, d), (a, b), 1 - share).log_e(-0.1), abs=1e-4, rel=1e-9
    )


def test_no_labels_are_no_evidence() -> None:
    for share in (None, 0.0, 0.5, 1.0):
        assert ArmsEvidence((0, 0), (0, 0), share).log_e() == pytest.approx(0, abs=1e-12)


def labels_needed(v1: float, v2: float, share: float, label_share: float | None) -> int:
    """The labels that decide a test with these accuracies, of which v2 gets `share`."""
    n, m = round(4_000 * (1 - share)), round(4_000 * share)
    of_v1, of_v2 = ArmOutcomes(n, round(n * v1)), ArmOutcomes(m, round(m * v2))
    needed = randomised_verdict(of_v1, of_v2, TrafficSplit(0, 0, share, label_share)).more_labels
    assert needed is not None
    return 4_000 + needed.v1 + needed.v2


@pytest.mark.parametrize(
    ("v1", "v2", "share", "at_most"),
    [(0.85, 0.87, 0.5, 0.75), (0.85, 0.82, 0.05, 0.6), (0.9, 0.91, 0.2, 0.6)],
)
def test_expected_share_saves_labels(v1: float, v2: float, share: float, at_most: float) -> None:
    without = labels_needed(v1, v2, share, None)
    assert labels_needed(v1, v2, share, share) < at_most * without
    # A share that was expected wrongly costs little more than none.
    assert labels_needed(v1, v2, share, 0.25) < 1.1 * without
