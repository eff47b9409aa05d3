"""The score interval of a share (Wilson 1927)."""

from __future__ import annotations

import math

from scipy.special import ndtri

from stats.outcomes import Interval

Z_95 = float(ndtri(0.975))


def wilson_interval(count: int, of: int, confidence: float = 0.95) -> Interval | None:
    """Score interval of the share `count / of`, in [0, 1]; None if `of` is 0."""
    if not of:
        return None
    z = float(ndtri((1 + confidence) / 2))
    rest, square = of - count, z**2
    centre = (count + square / 2) / (of + square)
    reach = z * math.sqrt(count * rest / of + square / 4) / (of + square)
    return Interval(
        low=max(centre - reach, 0.0) if count else 0.0,
        high=min(centre + reach, 1.0) if rest else 1.0,
    )
