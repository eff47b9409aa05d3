"""E-values and confidence sequences: fair games, however often they are looked at."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, logsumexp, xlogy
from scipy.stats import binom

from analytics.statistics.confidence_sequence import (
    _log_capital,
    arms_confidence_sequence,
    paired_confidence_sequence,
)
from analytics.statistics.outcomes import ArmOutcomes, Interval, PairedOutcomes
from analytics.statistics.sequential import (
    ARM_CONCENTRATION,
    SPLIT_CONCENTRATION,
    always_valid_p,
    log_e_arms,
    log_e_discordant,
    log_e_split,
    log_threshold,
)

LIMIT = log_threshold(0.05)
BATCHES, BATCH, PEEKS = 6, 50, 10_000
RUNS = BATCHES * BATCH
COUNTS = st.integers(0, 10**9)
FEW = st.integers(0, 500)
PAIRS = st.builds(PairedOutcomes, FEW, FEW, FEW, FEW)
ARMS = st.builds(lambda right, wrong: ArmOutcomes(right + wrong, right), FEW, FEW)

Draws = NDArray[np.bool_]
Numbers = NDArray[np.float64] | NDArray[np.int64] | float


def log_e_of(v1: ArmOutcomes, v2: ArmOutcomes) -> float:
    return log_e_arms(v1.right, v1.wrong, v2.right, v2.wrong)


def log_e_arm(right: Numbers, wrong: Numbers, accuracy: Numbers) -> NDArray[np.float64]:
    """One arm's beta-binomial against its accuracy, as SciPy or as an urn would have it."""
    a, b = ARM_CONCENTRATION * accuracy, ARM_CONCENTRATION * (1 - accuracy)
    log_likelihood = xlogy(right, accuracy) + xlogy(wrong, 1 - accuracy)
    return np.asarray(betaln(a + right, b + wrong) - betaln(a, b) - log_likelihood)


def draws(random: np.random.Generator, chance: float) -> Draws:
    """Whether an event of this chance happens, for each peek of each run of a batch."""
    return random.random((BATCH, PEEKS), dtype=np.float32) < chance


def counted(events: Draws) -> NDArray[np.int64]:
    return np.cumsum(events, axis=1, dtype=np.int64)


def ever(log_e: NDArray[np.float64], limit: float) -> int:
    return int(np.sum(np.any(log_e >= limit, axis=1)))


def test_eight_pairs_in_a_row_are_the_fewest_that_convince() -> None:
    assert math.exp(log_e_discordant(0, 7)) == pytest.approx(128 / 8)
    assert math.exp(log_e_discordant(0, 8)) == pytest.approx(256 / 9)
    assert always_valid_p(log_e_discordant(0, 8)) == pytest.approx(9 / 256)


@given(FEW, FEW)
def test_discordant_e_value_is_that_of_robbins(lost: int, won: int) -> None:
    """Robbins (1970): (n + 1) times the binomial probability is the inverse."""
    inverse = (lost + won + 1) * binom.pmf(won, lost + won, 0.5)
    assert math.exp(-log_e_discordant(lost, won)) == pytest.approx(inverse, rel=1e-8)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_split_e_value_multiplies_what_each_subject_was_predicted(
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
def test_one_subject_in_an_arm_that_gets_none_is_a_mismatch(share: float) -> None:
    right, wrong = (9, 0) if share == 0 else (0, 9)
    assert log_e_split(right, wrong, share) == 0
    assert log_e_split(right + 1, wrong + 1, share) == np.inf
    assert always_valid_p(log_e_split(right + 1, wrong + 1, share)) == 0


def test_arms_e_value_of_two_and_two() -> None:
    """One half is the likeliest equal accuracy; it gives 1/4 to each arm, the urn a little more."""
    of_an_arm = (15 / 30) * (16 / 31)
    assert math.exp(log_e_arms(2, 0, 0, 2)) == pytest.approx((of_an_arm / 0.25) ** 2)


@settings(max_examples=40)
@given(FEW, FEW, FEW, FEW, st.floats(-0.95, 0.95))
def test_arms_e_value_is_the_least_over_all_accuracies(
    a: int, b: int, c: int, d: int, difference: float
) -> None:
    first = np.linspace(max(0, -difference), min(1, 1 - difference), 5_001)[1:-1]
    made = log_e_arms(a, b, c, d, difference)
    on_the_grid = log_e_arm(a, b, first) + log_e_arm(c, d, first + difference)
    assert made <= on_the_grid.min() + 1e-9
    assert made == pytest.approx(on_the_grid.min(), abs=0.2)


def test_no_counts_are_no_evidence() -> None:
    assert log_e_discordant(0, 0) == log_e_arms(0, 0, 0, 0) == log_e_split(0, 0, 0.3) == 0
    assert always_valid_p(0.0) == 1
    assert always_valid_p(-40.0) == 1


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_swapped_versions_have_the_same_evidence(a: int, b: int, c: int, d: int) -> None:
    assert log_e_discordant(a, b) == log_e_discordant(b, a)
    assert log_e_arms(a, b, c, d) == pytest.approx(log_e_arms(c, d, a, b), abs=1e-4)
    assert log_e_arms(a, b, c, d) == pytest.approx(log_e_arms(b, a, d, c), abs=1e-4)
    assert log_e_arms(a, b, c, d, 0.1) == log_e_arms(c, d, a, b, -0.1)
    assert math.isfinite(log_e_arms(a, b, c, d))
    assert np.isfinite(log_e_discordant(a, b))
    assert np.isfinite(log_e_split(a, b, 0.1))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_that_is_none_is_refused(alpha: float) -> None:
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


@pytest.mark.parametrize(("v1", "v2"), [(0.02, 0.02), (0.5, 0.5), (0.9, 0.9), (0.9, 0.6)])
def test_arms_e_value_is_at_most_a_fair_game(v1: float, v2: float) -> None:
    expected = sum(
        binom.pmf(first, 40, v1)
        * binom.pmf(second, 20, v2)
        * math.exp(log_e_arms(first, 40 - first, second, 20 - second, v2 - v1))
        for first, second in product(range(41), range(21))
    )
    assert 0 < expected <= 1


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


@settings(max_examples=50)
@given(PAIRS)
def test_paired_sequence_leaves_out_0_when_the_e_value_convinces(outcomes: PairedOutcomes) -> None:
    made = paired_confidence_sequence(outcomes, 0.05)
    convinced = bool(log_e_discordant(outcomes.only_v1_right, outcomes.only_v2_right) > LIMIT)
    assert (made.low > 0 or made.high < 0) == convinced
    if outcomes.labelled:
        difference = (outcomes.only_v2_right - outcomes.only_v1_right) / outcomes.labelled
        assert -1 <= made.low <= difference <= made.high <= 1


@given(ARMS, ARMS)
def test_arms_sequence_leaves_out_0_when_the_e_value_convinces(
    v1: ArmOutcomes, v2: ArmOutcomes
) -> None:
    made = arms_confidence_sequence(v1, v2, 0.05)
    assert (made.low > 0 or made.high < 0) == (log_e_of(v1, v2) > LIMIT)
    if v1.labelled and v2.labelled:
        difference = v2.right / v2.labelled - v1.right / v1.labelled
        assert -1 <= made.low <= difference <= made.high <= 1


@settings(max_examples=30)
@given(PAIRS, ARMS, ARMS)
def test_swapped_versions_negate_the_sequences(
    pairs: PairedOutcomes, v1: ArmOutcomes, v2: ArmOutcomes
) -> None:
    turned_pairs = PairedOutcomes(
        pairs.both_right, pairs.only_v2_right, pairs.only_v1_right, pairs.none_right
    )
    for made, turned in (
        (paired_confidence_sequence(pairs, 0.05), paired_confidence_sequence(turned_pairs, 0.05)),
        (arms_confidence_sequence(v1, v2, 0.05), arms_confidence_sequence(v2, v1, 0.05)),
    ):
        assert (made.low, made.high) == (-turned.high, -turned.low)


def test_more_certainty_and_fewer_labels_widen_the_sequences() -> None:
    def paired(scale: int, alpha: float) -> Interval:
        return paired_confidence_sequence(PairedOutcomes(8 * scale, 1 * scale, 2 * scale, 0), alpha)

    def routed(scale: int, alpha: float) -> Interval:
        return arms_confidence_sequence(
            ArmOutcomes(10 * scale, 8 * scale), ArmOutcomes(5 * scale, 4 * scale), alpha
        )

    for sequence in (paired, routed):
        widths = [
            made.high - made.low
            for made in (
                sequence(1, 0.001),
                sequence(1, 0.05),
                sequence(10, 0.05),
                sequence(10**4, 0.05),
                sequence(10**8, 0.05),
            )
        ]
        assert widths == sorted(widths, reverse=True)
        assert 0 < widths[-1] < 5e-4


@pytest.mark.parametrize(
    ("outcomes", "low", "high"),
    [
        (PairedOutcomes(0, 0, 0, 0), -1.0, 1.0),
        (PairedOutcomes(10**9, 0, 0, 0), -5.37e-9, 5.37e-9),
        (PairedOutcomes(0, 0, 10**9, 0), 1 - 4.75e-8, 1.0),
        (PairedOutcomes(0, 10**9, 0, 0), -1.0, -1 + 4.75e-8),
        (PairedOutcomes(1, 0, 0, 0), -0.975, 0.975),
        (PairedOutcomes(0, 0, 1, 0), -0.95, 1.0),
    ],
)
def test_paired_sequence_at_the_ends(outcomes: PairedOutcomes, low: float, high: float) -> None:
    made = paired_confidence_sequence(outcomes, 0.05)
    assert [made.low, made.high] == pytest.approx([low, high], rel=2e-3)


@pytest.mark.parametrize(
    ("v1", "v2", "low", "high"),
    [
        ((0, 0), (5, 5), -1.0, 1.0),
        ((10**9, 10**9), (10**9, 10**9), -3e-9, 3e-9),
        ((10**9, 0), (10**9, 10**9), 1 - 4.45e-8, 1.0),
        ((1, 1), (1, 0), -1.0, 1.0),
        ((12, 12), (12, 0), -1.0, -0.0396),
    ],
)
def test_arms_sequence_at_the_ends(
    v1: tuple[int, int], v2: tuple[int, int], low: float, high: float
) -> None:
    made = arms_confidence_sequence(ArmOutcomes(*v1), ArmOutcomes(*v2), 0.05)
    assert [made.low, made.high] == pytest.approx([low, high], rel=2e-3)


@pytest.mark.parametrize(
    ("v1", "v2"),
    [((100, 90), (100, 95)), ((9_000, 8_100), (1_000, 930)), ((10**6, 500), (10**6, 700))],
)
def test_arms_sequence_is_narrower_than_the_union_bound(
    v1: tuple[int, int], v2: tuple[int, int]
) -> None:
    made = arms_confidence_sequence(ArmOutcomes(*v1), ArmOutcomes(*v2), 0.05)
    first, second = robbins(*v1), robbins(*v2)
    assert made.high - made.low < (second.high - first.low) - (second.low - first.high)


def robbins(labelled: int, right: int) -> Interval:
    """One arm's beta-binomial confidence sequence at 0.025."""
    wrong, observed = labelled - right, right / labelled
    mixture = float(betaln(1 + right, 1 + wrong)) + math.log(0.025)

    def beyond(accuracy: float) -> float:
        return mixture - float(xlogy(right, accuracy) + xlogy(wrong, 1 - accuracy))

    return Interval(
        float(brentq(beyond, 1e-12, observed)), float(brentq(beyond, observed, 1 - 1e-12))
    )


def test_paired_e_value_seldom_convinces_without_a_difference() -> None:
    random, false = np.random.default_rng(1), 0
    for _ in range(BATCHES):
        won = counted(draws(random, 0.5))
        false += ever(log_e_discordant(np.arange(1, PEEKS + 1) - won, won), LIMIT)
    assert false / RUNS <= 0.05


@pytest.mark.parametrize(("accuracy", "v2_share"), [(0.5, 0.5), (0.9, 0.1)])
def test_arms_e_value_seldom_convinces_without_a_difference(
    accuracy: float, v2_share: float
) -> None:
    """At the pooled accuracy, one of those that the e-value is the least over: it is no more."""
    random, false = np.random.default_rng(2), 0
    labelled = np.arange(1, PEEKS + 1)
    for _ in range(BATCHES):
        is_right, to_v2 = draws(random, accuracy), draws(random, v2_share)
        right, right_2, labelled_2 = counted(is_right), counted(is_right & to_v2), counted(to_v2)
        right_1, labelled_1 = right - right_2, labelled - labelled_2
        pooled = (right + 0.5) / (labelled + 1)
        false += ever(
            log_e_arm(right_1, labelled_1 - right_1, pooled)
            + log_e_arm(right_2, labelled_2 - right_2, pooled),
            LIMIT,
        )
    assert false / RUNS <= 0.05


@pytest.mark.parametrize("v2_share", [0.5, 0.1])
def test_split_e_value_seldom_convinces_when_the_split_is_right(v2_share: float) -> None:
    random, subjects = np.random.default_rng(3), np.arange(1, PEEKS + 1)
    at_5_percent = at_1_permille = 0
    for _ in range(BATCHES):
        second = counted(draws(random, v2_share))
        log_e = log_e_split(subjects - second, second, v2_share)
        at_5_percent += ever(log_e, LIMIT)
        at_1_permille += ever(log_e, log_threshold(0.001))
    assert at_5_percent / RUNS <= 0.05
    assert at_1_permille / RUNS <= 0.001


def test_sequences_hold_the_truth_at_all_looks_at_once() -> None:
    random = np.random.default_rng(4)
    looks = np.geomspace(5, 5_000, 6).astype(int)
    missed = 0
    for _ in range(25):
        scores = random.choice([-1, 0, 1], size=looks[-1], p=[0.05, 0.85, 0.1])
        first, second = random.random((2, looks[-1])) < [[0.85], [0.9]]
        for look in looks.tolist():
            lost, tied, won = np.bincount(scores[:look] + 1, minlength=3).tolist()
            pairs = paired_confidence_sequence(PairedOutcomes(tied, lost, won, 0), 0.05)
            v1 = ArmOutcomes(look, int(first[:look].sum()))
            v2 = ArmOutcomes(look, int(second[:look].sum()))
            routed = arms_confidence_sequence(v1, v2, 0.05)
            missed += not (pairs.low <= 0.05 <= pairs.high and routed.low <= 0.05 <= routed.high)
    assert missed / 25 <= 0.05
