"""Versions that answered the same texts: agreement, kappa, McNemar, Tango, Student."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binomtest, ttest_1samp

from core.types import SENTIMENTS
from stats.outcomes import Interval, PairedOutcomes
from stats.paired import (
    ConfidenceDifferences,
    LabelTable,
    cohen_kappa,
    compare_pairs,
    mcnemar_p_value,
    mean_interval,
    tango_interval,
)

COUNTS = st.integers(0, 10**9)
FEW = st.integers(0, 300)
OUTCOMES = st.builds(PairedOutcomes, COUNTS, COUNTS, COUNTS, COUNTS)
FEW_OUTCOMES = st.builds(PairedOutcomes, FEW, FEW, FEW, FEW).filter(lambda made: made.labelled > 0)
TABLES = st.dictionaries(st.tuples(*[st.sampled_from(SENTIMENTS)] * 2), COUNTS)
NO_DIFFERENCES = ConfidenceDifferences(0, 0.0, 0.0)


def table(*rows: tuple[int, int, int]) -> LabelTable:
    return {
        (first, second): count
        for first, row in zip(SENTIMENTS, rows, strict=True)
        for second, count in zip(SENTIMENTS, row, strict=True)
    }


def differences(values: list[float]) -> ConfidenceDifferences:
    return ConfidenceDifferences(
        len(values), math.fsum(values), math.fsum(value * value for value in values)
    )


def swapped(outcomes: PairedOutcomes) -> PairedOutcomes:
    return PairedOutcomes(
        outcomes.both_right, outcomes.only_v2_right, outcomes.only_v1_right, outcomes.none_right
    )


def test_kappa_of_two_psychiatrists() -> None:
    """Fleiss, Levin, Paik (2003), "Statistical methods for rates and proportions", table 18.1."""
    diagnoses = table((75, 1, 4), (5, 4, 1), (0, 0, 10))
    assert cohen_kappa(diagnoses) == pytest.approx(0.68, abs=0.005)
    assert cohen_kappa(diagnoses) == pytest.approx((0.89 - 0.66) / (1 - 0.66))


@pytest.mark.parametrize(
    ("labels", "kappa"),
    [
        (table((5, 0, 0), (0, 5, 0), (0, 0, 5)), 1.0),
        (table((10**9, 0, 0), (0, 0, 0), (0, 0, 1)), 1.0),
        (table((4, 0, 4), (0, 0, 0), (4, 0, 4)), 0.0),
        (table((0, 0, 5), (0, 0, 0), (5, 0, 0)), -1.0),
        (table((0, 0, 7), (0, 0, 0), (0, 0, 0)), 0.0),
        (table((7, 0, 0), (0, 0, 0), (0, 0, 0)), None),
        ({("neutral", "neutral"): 10**9}, None),
        ({}, None),
    ],
)
def test_kappa_tells_agreement_from_chance(labels: LabelTable, kappa: float | None) -> None:
    assert cohen_kappa(labels) == kappa


@given(TABLES)
def test_kappa_is_symmetric_in_the_versions(labels: LabelTable) -> None:
    turned = {(second, first): count for (first, second), count in labels.items()}
    kappa = cohen_kappa(labels)
    assert cohen_kappa(turned) == kappa
    assert kappa is None or -1 <= kappa <= 1


def test_mcnemar_of_airway_hyperresponsiveness() -> None:
    """Bentur et al. (2009), as in Fagerland, Lydersen, Laake (2014), Stat. Med. 33."""
    assert mcnemar_p_value(PairedOutcomes(1, 1, 7, 12)) == 0.0703125


@given(FEW_OUTCOMES)
def test_mcnemar_is_the_exact_binomial_test(outcomes: PairedOutcomes) -> None:
    discordant = outcomes.only_v1_right + outcomes.only_v2_right
    expected = binomtest(outcomes.only_v1_right, discordant).pvalue if discordant else 1.0
    assert mcnemar_p_value(outcomes) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(outcomes) == mcnemar_p_value(swapped(outcomes))


def test_mcnemar_of_a_thousand_million_pairs() -> None:
    outcomes = PairedOutcomes(0, 5 * 10**8 - 20_000, 5 * 10**8 + 20_000, 0)
    assert mcnemar_p_value(outcomes) == pytest.approx(
        binomtest(outcomes.only_v1_right, 10**9).pvalue, rel=1e-5
    )


def test_tango_interval_of_airway_hyperresponsiveness() -> None:
    """Fagerland, Lydersen, Laake (2014): -0.517 to -0.026, of before minus after."""
    made = tango_interval(PairedOutcomes(1, 1, 7, 12))
    assert made is not None
    assert [made.low, made.high] == pytest.approx([0.026, 0.517], abs=5e-4)


def test_tango_interval_without_discordant_pairs_is_that_of_wilson() -> None:
    high = binomtest(0, 40).proportion_ci(method="wilson").high
    made = tango_interval(PairedOutcomes(30, 0, 0, 10))
    assert made is not None
    assert [made.low, made.high] == pytest.approx([-high, high])


@given(FEW_OUTCOMES)
def test_tango_limits_have_the_score_statistic_of_the_level(outcomes: PairedOutcomes) -> None:
    made = tango_interval(outcomes)
    assert made is not None
    for limit in (made.low, made.high):
        if abs(limit) < 1:
            assert score_statistic(outcomes, limit) == pytest.approx(1.959964, rel=1e-3)


def score_statistic(outcomes: PairedOutcomes, difference: float) -> float:
    """By looking for the likeliest share of lost pairs instead of solving for it."""
    n, won, lost = outcomes.labelled, outcomes.only_v2_right, outcomes.only_v1_right
    low, high = max(0.0, -difference), (1 - difference) / 2

    def unlikelihood(share: float) -> float:
        rest = max(1 - 2 * share - difference, 0.0)
        return -float(
            xlogy(won, share + difference) + xlogy(lost, share) + xlogy(n - won - lost, rest)
        )

    found = minimize_scalar(
        unlikelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    share = min([float(found.x), low, high], key=unlikelihood)
    spread = math.sqrt(n * (2 * share + difference * (1 - difference)))
    return abs(won - lost - n * difference) / spread


@given(FEW_OUTCOMES)
def test_tango_excludes_0_when_the_score_test_rejects(outcomes: PairedOutcomes) -> None:
    made = tango_interval(outcomes)
    assert made is not None
    won, lost = outcomes.only_v2_right, outcomes.only_v1_right
    significant = (won - lost) ** 2 > 3.8414588 * (won + lost)
    assert (made.low > 0 or made.high < 0) == significant


@given(OUTCOMES)
def test_swapped_versions_negate_the_interval(outcomes: PairedOutcomes) -> None:
    made, turned = tango_interval(outcomes), tango_interval(swapped(outcomes))
    if made is None or turned is None:
        assert outcomes.labelled == 0
        return
    assert (made.low, made.high) == (-turned.high, -turned.low)
    observed = (outcomes.only_v2_right - outcomes.only_v1_right) / outcomes.labelled
    assert -1 <= made.low <= observed <= made.high <= 1


@pytest.mark.parametrize(
    ("labelled", "v1_only", "v2_only"),
    [(10, 0.02, 0.1), (20, 0.1, 0.15), (30, 0.01, 0.04), (50, 0.1, 0.2)],
)
def test_tango_covers_the_truth_with_few_labels(
    labelled: int, v1_only: float, v2_only: float
) -> None:
    """Summed over all outcomes. Two standard errors cover but 0.70, 0.92, 0.77 and 0.94."""
    covered = 0.0
    for lost in range(labelled + 1):
        for won in range(labelled + 1 - lost):
            made = tango_interval(PairedOutcomes(labelled - won - lost, lost, won, 0))
            assert made is not None
            if made.low <= v2_only - v1_only <= made.high:
                ways = math.comb(labelled, lost) * math.comb(labelled - lost, won)
                rest = (1 - v1_only - v2_only) ** (labelled - won - lost)
                covered += ways * v1_only**lost * v2_only**won * rest
    assert covered > 0.95


def test_mean_interval_of_the_sleep_data() -> None:
    """Student (1908): hours of sleep gained, here divided by ten; 0.70 to 2.46 hours in R."""
    gained = [0.12, 0.24, 0.13, 0.13, 0.0, 0.10, 0.18, 0.08, 0.46, 0.14]
    made = mean_interval(differences(gained))
    expected = ttest_1samp(gained, 0).confidence_interval(0.95)
    assert made is not None
    assert [made.low, made.high] == pytest.approx([expected.low, expected.high])
    assert made.low == pytest.approx(0.07001142)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50))
def test_mean_interval_negates_with_the_differences(values: list[float]) -> None:
    made = mean_interval(differences(values))
    turned = mean_interval(differences([-value for value in values]))
    assert made is not None
    assert turned is not None
    assert (made.low, made.high) == (-turned.high, -turned.low)
    assert -1 <= made.low <= made.high <= 1


def test_equal_differences_have_no_spread_despite_rounding() -> None:
    made = mean_interval(ConfidenceDifferences(3, 0.3, 3 * 0.01 - 1e-17))
    assert made is not None
    assert [made.low, made.high] == pytest.approx([0.1, 0.1])
    assert mean_interval(ConfidenceDifferences(1, 0.3, 0.09)) is None


def test_comparison_without_counts_has_no_statistics() -> None:
    made = compare_pairs({}, NO_DIFFERENCES, PairedOutcomes(0, 0, 0, 0))
    assert (made.pop("pairs"), made.pop("labelled")) == (0, 0)
    assert set(made.values()) == {None}


def test_comparison_of_one_pair() -> None:
    made = compare_pairs(
        {("negative", "positive"): 1},
        ConfidenceDifferences(1, -0.2, 0.04),
        PairedOutcomes(0, 0, 1, 0),
    )
    assert (made["pairs"], made["agreement"], made["kappa"]) == (1, 0.0, 0.0)
    assert (made["confidence_difference"], made["confidence_difference_interval"]) == (-0.2, None)
    assert (made["v1_accuracy"], made["v2_accuracy"], made["accuracy_difference"]) == (
        0.0,
        1.0,
        1.0,
    )
    assert (made["mcnemar_p"], made["always_valid_p"]) == (1.0, 1.0)
    assert made["accuracy_difference_interval"].low == pytest.approx(-0.587, abs=5e-4)
    assert made["always_valid_interval"].low < made["accuracy_difference_interval"].low


def test_comparison_of_a_thousand_pairs() -> None:
    labels = table((400, 0, 30), (0, 0, 0), (70, 0, 500))
    made = compare_pairs(
        labels, ConfidenceDifferences(1_000, 20.0, 40.0), PairedOutcomes(850, 30, 70, 50)
    )
    assert (made["pairs"], made["agreement"]) == (1_000, 0.9)
    assert made["confidence_difference"] == 0.02
    reach = 1.9623 * math.sqrt((40 - 1_000 * 0.02**2) / 999 / 1_000)
    assert made["confidence_difference_interval"].high == pytest.approx(0.02 + reach, abs=1e-6)
    assert (made["labelled"], made["v1_accuracy"], made["v2_accuracy"]) == (1_000, 0.88, 0.92)
    assert made["accuracy_difference"] == 0.04
    assert made["mcnemar_p"] == pytest.approx(binomtest(30, 100).pvalue)
    assert 0 < made["always_valid_interval"].low < made["accuracy_difference_interval"].low
    assert made["mcnemar_p"] < made["always_valid_p"] < 0.05


@settings(max_examples=30)
@given(OUTCOMES)
def test_comparison_is_finite_at_any_size(outcomes: PairedOutcomes) -> None:
    count = outcomes.labelled
    made = compare_pairs(
        {("positive", "negative"): count},
        ConfidenceDifferences(count, 0.1 * count, count),
        outcomes,
    )
    for name, value in made.items():
        ends = [value.low, value.high] if isinstance(value, Interval) else [value]
        assert all(end is None or np.isfinite(end) for end in ends), name


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        PairedOutcomes(1, -1, 0, 0)
    with pytest.raises(ValueError, match="negative"):
        cohen_kappa({("positive", "positive"): -1})
