"""The score interval of a share (Wilson 1927), and that of the difference of two shares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from stats.outcomes import Interval

Z_95 = float(ndtri(0.975))

Numbers = NDArray[np.float64]


class Bounds(NamedTuple):
    """The ends of intervals, element by element."""

    low: Numbers
    high: Numbers


def wilson_interval(count: int, of: int, confidence: float = 0.95) -> Interval | None:
    """Score interval of the share `count / of`, in [0, 1]; None if `of` is 0."""
    if not of:
        return None
    low, high = wilson_bounds(count, of, float(ndtri((1 + confidence) / 2)))
    return Interval(float(low), float(high))


def wilson_bounds(count: ArrayLike, of: ArrayLike, z: ArrayLike = Z_95) -> Bounds:
    """Score intervals of the shares `count / of`, in [0, 1]; [0, 1] where `of` is 0.

    Counts may be fractions. `z` is the normal quantile of the confidence.
    """
    counted, total = np.asarray(count, dtype=np.float64), np.asarray(of, dtype=np.float64)
    z_ = np.asarray(z, dtype=np.float64)
    rest, square = total - counted, z_**2
    # Without any value the variance is 0 / 0, and the interval is everything there is.
    variance = counted * rest / np.maximum(total, np.finfo(np.float64).tiny)
    centre = (counted + square / 2) / (total + square)
    reach = z_ * np.sqrt(variance + square / 4) / (total + square)
    low = np.where(counted > 0, np.maximum(centre - reach, 0.0), 0.0)
    high = np.where(rest > 0, np.minimum(centre + reach, 1.0), 1.0)
    return Bounds(low, high)


def newcombe_bounds(
    first: ArrayLike, of_first: ArrayLike, second: ArrayLike, of_second: ArrayLike,
    z: ArrayLike = Z_95,
) -> Bounds:  # fmt: skip
    """Hybrid score intervals of second / of_second - first / of_first, in [-1, 1].

    Newcombe (1998, "Interval estimation for the difference between independent proportions", Stat.
    Med. 17, method 10): the Wilson limits of both shares, their distances added as squares. Where
    either has no values, the interval is [-1, 1].
    """
    of_1, of_2 = np.asarray(of_first, dtype=np.float64), np.asarray(of_second, dtype=np.float64)
    p1 = np.asarray(first, dtype=np.float64) / np.where(of_1 > 0, of_1, 1.0)
    p2 = np.asarray(second, dtype=np.float64) / np.where(of_2 > 0, of_2, 1.0)
    low_1, high_1 = wilson_bounds(first, of_1, z)
    low_2, high_2 = wilson_bounds(second, of_2, z)
    known = (of_1 > 0) & (of_2 > 0)
    low = p2 - p1 - np.hypot(p2 - low_2, high_1 - p1)
    high = p2 - p1 + np.hypot(high_2 - p2, p1 - low_1)
    return Bounds(np.where(known, low, -1.0), np.where(known, high, 1.0))
