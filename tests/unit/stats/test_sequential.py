"""E-values: fair games, and their values for few outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp, xlogy
from scipy.stats import binom

from stats.confidence_sequence import (
    _log_capital,
)
from stats.sequential import (
    SPLIT_CONCENTRATION,
    always_valid_p,
    log_e_discordant,
    log_e_split,
    log_threshold,
)
from tests.unit.stats.e_values import COUNTS, FEW


def test_eight_equal_pairs_are_the_fewest_that_pass_the_threshold() -> None:
    assert math.exp(log_e_discordant(0, 7)) == pytest.approx(128 / 8)
    assert math.exp(log_e_discordant(0, 8)) == pytest.approx(256 / 9)
    assert always_valid_p(log_e_discordant(0, 8)) == pytest.approx(9 / 256)


@given(FEW, FEW)
def test_discordant_e_value_is_that_of_robbins(lost: int, won: int) -> None:
    """Robbins (1970): (n + 1) times the binomial probability is the inverse."""
    inverse = (lost + won + 1) * binom.pmf(won, lost + won, 0.5)
    assert math.exp(-log_e_discordant(lost, won)) == pytest.approx(inverse, rel=1e-8)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_split_e_value_is_the_product_of_the_predictive_ratios(
    first: int, second: int, share: float
) -> None:
    """The prediction of Laplace's urn, whose order does not matter, over that of the split."""
    urn = {1: SPLIT_CONCENTRATION * (1 - share), 2: SPLIT_CONCENTRATION * share}
    expected = 0.0
    for arm in np.random.default_rng(1).permutation([1] * first + [2] * second).tolist():
        expected += math.log(urn[arm] / (urn[1] + urn[2]) / (share if arm == 2 else 1 - share))
        urn[arm] += 1
    assert float(log_e_split(first, second, share)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_single_subject_in_an_arm_without_a_share_is_a_mismatch(share: float) -> None:
    right, wrong = (9, 0) if share == 0 else (0, 9)
    assert log_e_split(right, wrong, share) == 0
    assert log_e_split(right + 1, wrong + 1, share) == np.inf
    assert always_valid_p(log_e_split(right + 1, wrong + 1, share)) == 0


def test_e_value_without_counts_is_1() -> None:
    assert log_e_discordant(0, 0) == log_e_split(0, 0, 0.3) == 0
    assert always_valid_p(0.0) == 1
    assert always_valid_p(-40.0) == 1


@given(COUNTS, COUNTS)
def test_swapped_versions_have_the_same_evidence(a: int, b: int) -> None:
    assert log_e_discordant(a, b) == log_e_discordant(b, a)
    assert np.isfinite(log_e_discordant(a, b))
    assert np.isfinite(log_e_split(a, b, 0.1))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_outside_0_and_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        log_threshold(alpha)


@pytest.mark.parametrize("difference", [-0.6, -0.2, 0.0, 0.05, 0.5])
@pytest.mark.parametrize("lost_share", [0.05, 0.2])
def test_capital_against_the_true_difference_is_a_fair_game(
    difference: float, lost_share: float
) -> None:
    """Over all outcomes of six pairs, what it is expected to be is the stake."""
    won_share = lost_share + difference
    if won_share < 0:
        lost_share, won_share = lost_share - difference, lost_share
    expected = 0.0
    for lost in range(7):
        for won in range(7 - lost):
            tied = 6 - lost - won
            ways = math.factorial(6) // math.prod(map(math.factorial, (lost, won, tied)))
            chance = ways * lost_share**lost * won_share**won
            chance *= (1 - lost_share - won_share) ** tied
            expected += chance * math.exp(_log_capital(won, lost, tied, difference))
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_discordant_and_split_e_values_are_fair_games() -> None:
    n = np.arange(41)
    fair = np.exp(log_e_discordant(n, 40 - n)) @ binom.pmf(n, 40, 0.5)
    split = np.exp(log_e_split(40 - n, n, 0.1)) @ binom.pmf(n, 40, 0.1)
    assert [fair, split] == pytest.approx([1.0, 1.0])


@settings(max_examples=40)
@given(FEW, FEW, FEW, st.floats(-0.99, 0.99))
def test_capital_is_the_integral_over_bets(
    won: int, lost: int, tied: int, difference: float
) -> None:
    """With 1 + lambda (score - d) spelled out, lambda uniform between its bounds."""
    low, high = -1 / (1 - difference), 1 / (1 + difference)

    def log_capital(bets: NDArray[np.float64]) -> NDArray[np.float64]:
        factors = np.array(
            [1 + bets * (1 - difference), 1 - bets * (1 + difference), 1 - bets * difference]
        )
        logs = xlogy(np.array([[won], [lost], [tied]]), np.maximum(factors, 0))
        return np.asarray(np.sum(logs, axis=0), dtype=np.float64)

    bets = np.linspace(low, high, 50_001)
    expected = logsumexp(log_capital((bets[1:] + bets[:-1]) / 2)) - math.log(50_000)
    assert _log_capital(won, lost, tied, difference) == pytest.approx(expected, abs=1e-4)


@given(COUNTS, COUNTS, COUNTS)
def test_capital_without_a_difference_is_the_discordant_e_value(
    won: int, lost: int, tied: int
) -> None:
    capital = _log_capital(won, lost, tied, 0.0)
    assert capital == pytest.approx(float(log_e_discordant(lost, won)), abs=2e-5, rel=1e-9)
