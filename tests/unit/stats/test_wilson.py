"""The Wilson interval of a share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stats.wilson import wilson_interval


@pytest.mark.parametrize(
    ("of", "count", "low", "high"),
    [
        (263, 81, 0.2553, 0.3662),
        (148, 15, 0.0624, 0.1605),
        (20, 0, 0.0, 0.1611),
        (29, 1, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_newcombes_examples(
    of: int, count: int, low: float, high: float
) -> None:
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I."""
    interval = wilson_interval(count, of)
    assert interval is not None
    assert [interval.low, interval.high] == pytest.approx([low, high], abs=5e-5)


@given(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)).map(sorted),
    st.sampled_from([0.95, 0.9998]),
)
def test_wilson_interval_equals_that_of_scipy(counts: list[int], confidence: float) -> None:
    count, of = counts
    interval = wilson_interval(count, of, confidence)
    expected = binomtest(count, of).proportion_ci(confidence, method="wilson")
    assert interval is not None
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= interval.low <= count / of <= interval.high <= 1


def test_share_of_nothing_has_no_interval() -> None:
    assert wilson_interval(0, 0) is None
