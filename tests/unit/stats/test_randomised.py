"""Two arms of a traffic split: Newcombe's interval, and the sample ratio."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from stats.outcomes import ArmOutcomes, Interval, TrafficSplit
from stats.randomised import (
    compare_arms,
    newcombe_interval,
    sample_ratio_p_value,
)
from stats.wilson import wilson_interval

EMPTY = ArmOutcomes(0, 0)


def arms(most: int) -> st.SearchStrategy[ArmOutcomes]:
    return st.tuples(st.integers(0, most), st.integers(0, most)).map(
        lambda counts: ArmOutcomes(labelled=max(counts), right=min(counts))
    )


@pytest.mark.parametrize(
    ("v2", "v1", "low", "high"),
    [
        ((70, 56), (80, 48), 0.0524, 0.3339),
        ((10, 9), (10, 3), 0.1705, 0.8090),
        ((7, 6), (7, 2), 0.0582, 0.8062),
        ((56, 5), (29, 0), -0.0381, 0.1926),
        ((10, 0), (20, 0), -0.1611, 0.2775),
        ((10, 0), (10, 0), -0.2775, 0.2775),
        ((10, 10), (20, 0), 0.6791, 1.0),
        ((10, 10), (10, 0), 0.6075, 1.0),
    ],
)
def test_hybrid_score_interval_of_newcombes_examples(
    v2: tuple[int, int], v1: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe (1998), "Interval estimation for the difference ...", table II, method 10."""
    made = newcombe_interval(ArmOutcomes(*v1), ArmOutcomes(*v2))
    assert made is not None
    assert [made.low, made.high] == pytest.approx([low, high], abs=5e-5)


@given(arms(10**9), arms(10**9))
def test_swapped_arms_negate_the_interval(v1: ArmOutcomes, v2: ArmOutcomes) -> None:
    made, turned = newcombe_interval(v1, v2), newcombe_interval(v2, v1)
    if made is None or turned is None:
        assert 0 in {v1.labelled, v2.labelled}
        return
    assert [made.low, made.high] == pytest.approx([-turned.high, -turned.low])
    assert -1 <= made.low <= v2.right / v2.labelled - v1.right / v1.labelled <= made.high <= 1


def test_sample_ratio_of_a_broken_test() -> None:
    """Kohavi, Tang, Xu (2020), "Trustworthy online controlled experiments", chapter 3."""
    assert sample_ratio_p_value(TrafficSplit(821_588, 815_482, 0.5)) == pytest.approx(
        1.8e-6, rel=0.02
    )


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0.001, 0.999))
def test_sample_ratio_test_is_pearsons(v1: int, v2: int, share: float) -> None:
    expected = [(v1 + v2) * (1 - share), (v1 + v2) * share]
    p = float(chisquare([v1, v2], expected, sum_check=False).pvalue)
    assert sample_ratio_p_value(TrafficSplit(v1, v2, share)) == pytest.approx(p, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("split", "p"),
    [
        (TrafficSplit(0, 0, 0.5), None),
        (TrafficSplit(0, 0, 0.0), None),
        (TrafficSplit(9, 0, 0.0), 1.0),
        (TrafficSplit(9, 1, 0.0), 0.0),
        (TrafficSplit(0, 9, 1.0), 1.0),
        (TrafficSplit(1, 9, 1.0), 0.0),
        (TrafficSplit(5, 5, 0.5), 1.0),
        (TrafficSplit(10**9, 10**9, 0.5), 1.0),
    ],
)
def test_sample_ratio_at_the_ends(split: TrafficSplit, p: float | None) -> None:
    assert sample_ratio_p_value(split) == p


def test_comparison_without_counts_has_no_statistics() -> None:
    made = compare_arms(EMPTY, EMPTY, TrafficSplit(0, 0, 0.5))
    assert made.pop("split_always_valid_p") == 1.0
    assert set(made.values()) == {None}


def test_comparison_with_an_empty_arm_has_only_the_statistics_of_the_split() -> None:
    made = compare_arms(ArmOutcomes(1, 1), EMPTY, TrafficSplit(3, 2, 0.5))
    assert (made.pop("split_p"), made.pop("split_always_valid_p")) == (
        pytest.approx(0.6547, abs=5e-5), 1.0,
    )  # fmt: skip
    assert set(made.values()) == {None}


def test_arm_without_labels_has_no_accuracy() -> None:
    assert (ArmOutcomes(2_000, 1_760).accuracy, EMPTY.accuracy) == (0.88, None)
    assert wilson_interval(0, 0) is None
    interval = wilson_interval(1, 1)
    assert interval is not None
    assert interval.low == pytest.approx(0.2065, abs=5e-5)


def test_comparison_of_two_arms() -> None:
    made = compare_arms(
        ArmOutcomes(2_000, 1_760), ArmOutcomes(2_000, 1_880), TrafficSplit(5_050, 4_950, 0.5)
    )
    assert made["accuracy_difference"] == pytest.approx(0.06)
    assert 0 < made["always_valid_interval"].low < made["accuracy_difference_interval"].low < 0.06
    assert 0 < made["always_valid_p"] < 0.01
    assert made["split_p"] == pytest.approx(0.3173, abs=5e-5)
    assert made["split_always_valid_p"] == 1.0


@given(arms(10**9), arms(10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_comparison_is_finite_at_any_size(
    v1: ArmOutcomes, v2: ArmOutcomes, subjects_1: int, subjects_2: int
) -> None:
    made = compare_arms(v1, v2, TrafficSplit(subjects_1, subjects_2, 0.1))
    for name, value in made.items():
        ends = [value.low, value.high] if isinstance(value, Interval) else [value]
        numbers = [end for end in ends if isinstance(end, float)]
        assert all(math.isfinite(number) for number in numbers), name


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="the right predictions must be between"):
        ArmOutcomes(labelled=1, right=2)
    with pytest.raises(ValueError, match="the right predictions must be between"):
        ArmOutcomes(labelled=1, right=-1)
    with pytest.raises(ValueError, match="negative"):
        TrafficSplit(-1, 0, 0.5)
    with pytest.raises(ValueError, match="share"):
        TrafficSplit(0, 0, math.nan)
