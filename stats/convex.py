"""Root finding for the convex functions of confidence sequences."""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import brentq

_ALMOST_0 = 1e-200
_ALMOST_1 = 1 - 1e-15


def zero_of_rising(slope: Callable[[float], float]) -> float:
    """Find the zero of a rising function in (0, 1), within 1e-15; without one, the nearer end.

    The zero of the slope of a convex function is its minimum. `slope` is never evaluated at 0 or 1.
    """
    if slope(_ALMOST_0) >= 0:
        return _ALMOST_0
    if slope(_ALMOST_1) <= 0:
        return _ALMOST_1
    return float(brentq(slope, _ALMOST_0, _ALMOST_1, xtol=1e-15))


def upper_end(convex: Callable[[float], float], inside: float, limit: float) -> float:
    """Find the end above `inside`, at most 1, of the range where `convex` is below `limit`."""
    if inside >= _ALMOST_1 or convex(_ALMOST_1) <= limit:
        return 1.0
    start = max(inside, -_ALMOST_1)
    return float(brentq(lambda value: convex(value) - limit, start, _ALMOST_1))
