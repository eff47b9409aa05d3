"""Root finding for the convex functions of confidence sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from scipy.optimize import brentq

_ALMOST_0 = 1e-200
_ALMOST_1 = 1 - 1e-15
_MOST_STEPS = 200
_SMALL_STEP, _LONG_STEP = 1e-6, 8.0


def zero_of_rising(slope: Callable[[float], float]) -> float:
    """Find the zero of a rising function in (0, 1), within 1e-15; without one, the nearer end.

    The zero of the slope of a convex function is its minimum. `slope` is never evaluated at 0 or 1.
    """
    if slope(_ALMOST_0) >= 0:
        return _ALMOST_0
    if slope(_ALMOST_1) <= 0:
        return _ALMOST_1
    return float(brentq(slope, _ALMOST_0, _ALMOST_1, xtol=1e-15))


def newton_zero_of_rising(
    slope: Callable[[float], tuple[float, float]], start: float, most: float
) -> float:
    """Find the zero of a rising function in [-most, most]; without one, the nearer end.

    `slope` gives the value and its derivative. Newton's steps begin at `start`. A step that leaves
    the range in which the zero must lie is replaced by half of that range. The result is exact to
    about 1e-8.
    """
    low, high, value = -most, most, min(max(start, -most), most)
    for _ in range(_MOST_STEPS):
        at_value, rise = slope(value)
        low, high = (low, value) if at_value > 0 else (value, high)
        step = -at_value / rise if rise > 0 else math.inf
        if abs(step) < _SMALL_STEP:
            return value + step
        # A long step from a flat part says little.
        step = min(max(step, -_LONG_STEP), _LONG_STEP)
        before, value = value, value + step
        if not low < value < high:
            value = (low + high) / 2
        if abs(value - before) < _SMALL_STEP:
            return value
    return value


def upper_end(convex: Callable[[float], float], inside: float, limit: float) -> float:
    """Find the end above `inside`, at most 1, of the range where `convex` is below `limit`."""
    value_at = cache(convex)
    if inside >= _ALMOST_1 or value_at(_ALMOST_1) <= limit:
        return 1.0
    start = max(inside, -_ALMOST_1)
    least = value_at(start)

    # Nearly a straight line, for `convex` resembles a parabola: so few steps find its zero.
    def above(value: float) -> float:
        return math.sqrt(max(value_at(value) - least, 0.0)) - math.sqrt(limit - least)

    return float(brentq(above, start, _ALMOST_1, xtol=1e-11))
