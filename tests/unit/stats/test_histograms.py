"""Fixed bins, in Python and in SQL, and the quantiles of their counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from random import Random

import numpy as np
import pytest
from ddsketch import DDSketch, LogarithmicMapping
from hypothesis import given
from hypothesis import strategies as st

from analytics.latency import percentiles_ms
from stats.histogram import (
    CONFIDENCE,
    LATENCY_MS,
    TEXT_CHARACTERS,
    TOKEN_COUNT,
    Bins,
    Counts,
    EqualBins,
    LogarithmicBins,
    merged,
    quantiles,
)
from tests.unit.stats.postgres_arithmetic import evaluate

LATENCIES = st.floats(0.01, 3_600_000)
LOGARITHMIC = [LATENCY_MS, TEXT_CHARACTERS]
BINS: list[Bins] = [LATENCY_MS, CONFIDENCE, TEXT_CHARACTERS, TOKEN_COUNT]
ODDITIES = [-math.inf, -1.0, -0.0, 0.0, 5e-324, 1.0, 1e308, math.inf, math.nan]
# A hundredth of the value, and room for rounding.
ONE_PERCENT = 0.01 * (1 + 1e-9)


def quantile(bins: Bins, counts: Counts, fraction: float) -> float | None:
    return next(iter(quantiles(bins, counts, fraction)), None)


def counted(values: Iterable[float], bins: Bins = LATENCY_MS) -> dict[int, int]:
    return dict(Counter(bins.bin_of(value) for value in values))


@given(LATENCIES)
def test_latency_lies_within_one_percent_of_its_bins_value(value: float) -> None:
    assert LATENCY_MS.value_of(LATENCY_MS.bin_of(value)) == pytest.approx(value, rel=ONE_PERCENT)


@given(st.integers(1, 1_000_000))
def test_length_lies_within_ten_percent_of_its_bins_value(value: int) -> None:
    bins = TEXT_CHARACTERS
    assert bins.value_of(bins.bin_of(value)) == pytest.approx(value, rel=0.1 * (1 + 1e-9))


@given(LATENCIES)
def test_bins_are_those_of_ddsketch(value: float) -> None:
    mapping = LogarithmicMapping(0.01)
    number = LATENCY_MS.bin_of(value)
    edge = math.log(value) / math.log(mapping.gamma)
    # It takes binary logarithms, so that a value on an edge may round to the other side.
    assert number == mapping.key(value) or abs(edge - round(edge)) < 1e-9
    assert LATENCY_MS.value_of(number) == pytest.approx(mapping.value(number), rel=1e-9)


@pytest.mark.parametrize("bins", LOGARITHMIC)
def test_both_ends_of_a_logarithmic_bin_are_equally_far_from_its_value(
    bins: LogarithmicBins,
) -> None:
    gamma = (1 + bins.accuracy) / (1 - bins.accuracy)
    for number in range(bins.bin_of(bins.smallest), bins.bin_of(bins.largest) + 1):
        middle, end = bins.value_of(number), gamma**number
        assert middle / end == pytest.approx(1 - bins.accuracy, rel=1e-9)
        assert middle / (end / gamma) == pytest.approx(1 + bins.accuracy, rel=1e-9)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("value", ODDITIES)
def test_sql_and_python_agree_on_odd_values(bins: Bins, value: float) -> None:
    assert evaluate(bins.sql("x"), x=value) == bins.bin_of(value)


@pytest.mark.parametrize("bins", BINS)
@given(value=st.floats() | st.floats(0, 1) | st.floats(width=32))
def test_sql_and_python_agree_on_every_float(bins: Bins, value: float) -> None:
    assert evaluate(bins.sql("x"), x=value) == bins.bin_of(value)


@pytest.mark.parametrize("bins", LOGARITHMIC)
def test_sql_and_python_agree_at_every_edge(bins: LogarithmicBins) -> None:
    gamma = (1 + bins.accuracy) / (1 - bins.accuracy)
    first, last = bins.bin_of(bins.smallest), bins.bin_of(bins.largest)
    for number in range(first, last):
        edge = gamma**number
        for value in (math.nextafter(edge, 0), edge, math.nextafter(edge, math.inf)):
            assert evaluate(bins.sql("x"), x=value) == bins.bin_of(value)
            assert bins.bin_of(value) in {number, number + 1}
        assert bins.bin_of(edge * (1 - 1e-9)) == max(number, first)
        assert bins.bin_of(edge * (1 + 1e-9)) == max(number + 1, first)


def test_sql_and_python_agree_at_the_edges_of_confidence_in_single_precision() -> None:
    for number in range(51):
        edge = np.float32(number / 50)
        for stored in (np.nextafter(edge, np.float32(0)), edge, np.nextafter(edge, np.float32(1))):
            value = float(stored)
            assert evaluate(CONFIDENCE.sql("x"), x=value) == CONFIDENCE.bin_of(value)


def test_expressions_read_as_postgresql_expects() -> None:
    assert LATENCY_MS.sql("latency_ms") == (
        "ceil(ln(least(greatest(latency_ms::double precision, 0.01), 3600000.0))"
        f" / {2 * math.atanh(0.01)!r})::smallint"
    )
    assert CONFIDENCE.sql("confidence") == (
        "least(floor(greatest(confidence::double precision, 0) * 50), 49)::smallint"
    )


@pytest.mark.parametrize(
    ("confidence", "number"),
    [(0.0, 0), (0.019, 0), (0.02, 1), (0.5, 25), (0.979, 48), (0.98, 49), (1.0, 49)],
)
def test_confidence_has_fifty_bins_of_equal_width(confidence: float, number: int) -> None:
    assert CONFIDENCE.bin_of(confidence) == number
    assert CONFIDENCE.value_of(number) == pytest.approx(0.02 * number + 0.01)


def test_every_range_of_bins_is_as_small_as_documented() -> None:
    spans = {
        bins: bins.bin_of(bins.largest) - bins.bin_of(bins.smallest) + 1 for bins in LOGARITHMIC
    }
    assert spans == {LATENCY_MS: 986, TEXT_CHARACTERS: 70}


@given(
    st.lists(st.lists(LATENCIES, max_size=30), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 1.0]) | st.floats(0, 1),
)
def test_quantiles_of_merged_histograms_are_those_of_all_values(
    parts: list[list[float]], fraction: float
) -> None:
    values = [value for part in parts for value in part]
    found = quantile(LATENCY_MS, merged(counted(part) for part in parts), fraction)
    if not values:
        assert found is None
        return
    assert found == pytest.approx(
        float(np.quantile(values, fraction, method="inverted_cdf")), rel=ONE_PERCENT
    )


@given(st.lists(LATENCIES, min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles_are_those_of_ddsketch(values: list[float], fraction: float) -> None:
    sketch = DDSketch(0.01)
    for value in values:
        sketch.add(value)
    # Its rank is fraction * (n - 1), rounded down; ours is that of percentile_disc.
    rank = max(1, math.ceil(fraction * len(values)))
    same_rank = min(1.0, (rank - 0.5) / max(1, len(values) - 1))
    # Twice a hundredth only where a value on an edge fell into another bin there.
    assert quantile(LATENCY_MS, counted(values), fraction) == pytest.approx(
        sketch.get_quantile_value(same_rank), rel=0.021
    )


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.5])
def test_percentiles_of_many_latencies_are_those_of_numpy(spread: float) -> None:
    values = np.random.default_rng(7).lognormal(3, spread, 20_000)
    found = percentiles_ms(counted(values.tolist()))
    exact = np.quantile(values, [0.5, 0.95, 0.99])
    # Interpolation between neighbours, which numpy does unless told, moves 20,000 values little.
    assert list(found.values()) == pytest.approx(exact.tolist(), rel=0.012)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_of_confidence_is_off_by_half_a_bin_at_most(
    values: list[float], fraction: float
) -> None:
    found = quantile(CONFIDENCE, counted(values, CONFIDENCE), fraction)
    exact = float(np.quantile(values, fraction, method="inverted_cdf"))
    assert found == pytest.approx(exact, abs=0.01 + 1e-9)


@pytest.mark.parametrize("counts", [{}, {3: 0}, {-200: 0, 4: 0}])
def test_empty_histogram_has_no_quantiles(counts: dict[int, int]) -> None:
    assert quantile(LATENCY_MS, counts, 0.5) is None
    assert set(percentiles_ms(counts).values()) == {None}


def test_single_value_is_every_percentile() -> None:
    value = LATENCY_MS.value_of(150)
    assert percentiles_ms({150: 1}) == {"p50_ms": value, "p95_ms": value, "p99_ms": value}


def test_empty_bins_are_never_a_quantile() -> None:
    counts = {1: 0, 5: 1, 9: 0}
    for fraction in (0.0, 0.5, 1.0):
        assert quantile(EqualBins(10), counts, fraction) == pytest.approx(0.55)


@pytest.mark.parametrize("count", [2**53 + 1, 2**63, 10**30])
def test_enormous_counts_neither_overflow_nor_run_past_the_end(count: int) -> None:
    counts = {0: count, 10: count, 20: count}
    assert quantile(LATENCY_MS, counts, 0.0) == LATENCY_MS.value_of(0)
    assert quantile(LATENCY_MS, counts, 0.5) == LATENCY_MS.value_of(10)
    assert quantile(LATENCY_MS, counts, 1.0) == LATENCY_MS.value_of(20)


@given(
    st.lists(st.dictionaries(st.integers(-230, 760), st.integers(0, 10**15)), max_size=4),
    st.randoms(use_true_random=False),
)
def test_order_of_merging_does_not_matter(parts: list[dict[int, int]], random: Random) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert merged(shuffled) == merged(parts)
    assert sum(merged(parts).values()) == sum(sum(part.values()) for part in parts)


@pytest.mark.parametrize("fraction", [-0.01, 1.01, math.nan])
def test_fraction_outside_0_and_1_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        quantile(LATENCY_MS, {1: 1}, fraction)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        quantile(LATENCY_MS, {1: 5, 2: -1}, 0.5)
