"""The histogram bins of the rollups, and the quantiles of their counts.

PostgreSQL counts the values of a bin, so each kind of bin has its formula twice: in Python and in
SQL. The ddsketch package (3.0.1, of April 2024) is the reference of the tests. It is not used here,
because it takes values one at a time, keeps its counts as floats and has no public way to load the
counts of bins.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

Counts = Mapping[int, int]
"""How many values each bin holds; bins that are absent hold none."""


class Bins(Protocol):
    """A fixed division of the real line, the same in every rollup, so that counts can be added."""

    def bin_of(self, value: float) -> int: ...

    def value_of(self, bin_number: int) -> float: ...

    def sql(self, column: str) -> str: ...


@dataclass(frozen=True, slots=True)
class LogarithmicBins:
    """Bin i holds the values in (gamma^(i-1), gamma^i], gamma = (1 + accuracy) / (1 - accuracy).

    The logarithmic mapping of DDSketch (Masson, Rim, Lee 2019, PVLDB 12): `value_of` is within
    `accuracy` times every value of its bin. Values outside [smallest, largest] count as the nearer
    end and lose that bound; NaN counts as the largest value.
    """

    accuracy: float
    smallest: float
    largest: float

    def bin_of(self, value: float) -> int:
        return math.ceil(math.log(_clamped(value, self.smallest, self.largest)) / self._log_gamma)

    def value_of(self, bin_number: int) -> float:
        """The value with the same relative distance, `accuracy`, from both ends of the bin."""
        return math.exp(bin_number * self._log_gamma) * (1 - self.accuracy)

    def sql(self, column: str) -> str:
        """`bin_of` as a PostgreSQL expression of type smallint.

        `column` is a column's name or an expression in parentheses, of any numeric type; it must
        not be NULL, which would count as `smallest`. Without the cast, PostgreSQL would use its
        decimal logarithm for a whole number. Where another libm rounds a logarithm differently, a
        value that is exactly on an edge falls into the next bin, whose bound holds too.
        """
        at_least = f"greatest({column}::double precision, {self.smallest!r})"
        return f"ceil(ln(least({at_least}, {self.largest!r})) / {self._log_gamma!r})::smallint"

    @property
    def _log_gamma(self) -> float:
        return 2 * math.atanh(self.accuracy)


@dataclass(frozen=True, slots=True)
class EqualBins:
    """`count` bins of equal width on [0, 1]: bin i holds [i / count, (i + 1) / count), the last 1.

    Values outside count as the nearer end; NaN counts as the largest value.
    """

    count: int

    def bin_of(self, value: float) -> int:
        return min(math.floor(_clamped(value, 0, 1) * self.count), self.count - 1)

    def value_of(self, bin_number: int) -> float:
        """The middle of the bin, at most half a width off."""
        return (bin_number + 0.5) / self.count

    def sql(self, column: str) -> str:
        """`bin_of` as a PostgreSQL expression of type smallint; see `LogarithmicBins.sql`."""
        scaled = f"floor(greatest({column}::double precision, 0) * {self.count})"
        return f"least({scaled}, {self.count - 1})::smallint"


# 10 us to an hour in at most 986 bins; a longer request is cancelled long before.
LATENCY_MS = LogarithmicBins(accuracy=0.01, smallest=0.01, largest=3_600_000.0)
CONFIDENCE = EqualBins(50)
# Coarse, because they serve only drift: at most 70 bins.
TEXT_CHARACTERS = LogarithmicBins(accuracy=0.1, smallest=1.0, largest=1_000_000.0)
TOKEN_COUNT = LogarithmicBins(accuracy=0.1, smallest=1.0, largest=1_000_000.0)


def merged(histograms: Iterable[Counts]) -> dict[int, int]:
    """Add histograms; the sum is exact, because bins never move."""
    total: Counter[int] = Counter()
    for counts in histograms:
        total.update(counts)
    return dict(total)


def quantiles(bins: Bins, counts: Counts, *fractions: float) -> list[float]:
    """The values at ranks math.ceil(fraction * n), counted from 1, of n values; [] without any.

    They equal PostgreSQL's `percentile_disc` and numpy's `quantile(method="inverted_cdf")`, to
    within the accuracy of LogarithmicBins or half a width of EqualBins (Masson, Rim, Lee 2019).

    Raises:
        ValueError: a fraction lies outside [0, 1], or a count is negative.
    """
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must lie in [0, 1]: {fractions}")
    if any(count < 0 for count in counts.values()):
        raise ValueError("counts cannot be negative")
    occupied = sorted(counts)
    up_to = list(accumulate(counts[number] for number in occupied))
    if not up_to or not up_to[-1]:
        return []
    # Beyond 2^53 a float rank may be rounded up past the number of values.
    ranks = (min(max(1, math.ceil(fraction * up_to[-1])), up_to[-1]) for fraction in fractions)
    return [bins.value_of(occupied[bisect_left(up_to, rank)]) for rank in ranks]


def _clamped(value: float, low: float, high: float) -> float:
    """PostgreSQL's least(greatest(value, low), high), which sorts NaN above every number.

    The order of the arguments matters: Python returns the first of equal values and of NaN.
    """
    return min(high, max(value, low))
