"""Confidence sequences: they agree with the e-values and stay within [-1, 1]."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import betaln, xlogy

from stats.confidence_sequence import (
    arms_confidence_sequence,
    paired_confidence_sequence,
)
from stats.outcomes import ArmOutcomes, Interval, PairedOutcomes
from stats.sequential import (
    log_e_discordant,
)
from tests.unit.stats.e_values import ARMS, LIMIT, PAIRS, log_e_of


@settings(max_examples=50)
@given(PAIRS)
def test_paired_sequence_excludes_0_when_the_e_value_passes_its_threshold(
    outcomes: PairedOutcomes,
) -> None:
    made = paired_confidence_sequence(outcomes, 0.05)
    convinced = bool(log_e_discordant(outcomes.only_v1_right, outcomes.only_v2_right) > LIMIT)
    assert (made.low > 0 or made.high < 0) == convinced
    if outcomes.labelled:
        difference = (outcomes.only_v2_right - outcomes.only_v1_right) / outcomes.labelled
        assert -1 <= made.low <= difference <= made.high <= 1


@settings(max_examples=50)
@given(ARMS, ARMS, st.none() | st.floats(0, 1))
def test_arms_sequence_excludes_0_when_the_e_value_passes_its_threshold(
    v1: ArmOutcomes, v2: ArmOutcomes, label_share: float | None
) -> None:
    made = arms_confidence_sequence(v1, v2, label_share, 0.05)
    assert (made.low > 0 or made.high < 0) == (log_e_of(v1, v2, label_share) > LIMIT)
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
        (arms_confidence_sequence(v1, v2, 0.2, 0.05), arms_confidence_sequence(v2, v1, 0.8, 0.05)),
    ):
        assert [made.low, made.high] == pytest.approx([-turned.high, -turned.low], abs=1e-9)


def test_more_certainty_and_fewer_labels_widen_the_sequences() -> None:
    def paired(scale: int, alpha: float) -> Interval:
        return paired_confidence_sequence(PairedOutcomes(8 * scale, 1 * scale, 2 * scale, 0), alpha)

    def randomised(scale: int, alpha: float) -> Interval:
        return arms_confidence_sequence(
            ArmOutcomes(10 * scale, 8 * scale), ArmOutcomes(5 * scale, 4 * scale), 1 / 3, alpha
        )

    for sequence in (paired, randomised):
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
    made = arms_confidence_sequence(ArmOutcomes(*v1), ArmOutcomes(*v2), None, 0.05)
    assert [made.low, made.high] == pytest.approx([low, high], rel=2e-3)


@pytest.mark.parametrize(
    ("v1", "v2"),
    [((100, 90), (100, 95)), ((9_000, 8_100), (1_000, 930)), ((10**6, 500), (10**6, 700))],
)
def test_arms_sequence_is_narrower_than_the_union_bound(
    v1: tuple[int, int], v2: tuple[int, int]
) -> None:
    made = arms_confidence_sequence(ArmOutcomes(*v1), ArmOutcomes(*v2), 0.5, 0.05)
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
