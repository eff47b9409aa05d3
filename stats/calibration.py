"""The calibration of confidence: reliability curve and calibration error, from counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from scipy.special import betaincinv

from stats.histogram import CONFIDENCE
from stats.outcomes import LabelledBin
from stats.results import Calibration, ReliabilityPoint

# As in Naeini (2015). Labels are few, and 50 bins would show more noise than error.
RELIABILITY_BINS = 10
INTERVAL = (0.025, 0.975)


def calibration(bins: Mapping[int, LabelledBin]) -> Calibration | None:
    """Reliability curve and calibration error over `CONFIDENCE` bins; None without labels.

    The error is the sum over ten bins of n/N |accuracy - mean confidence| (Naeini, Cooper,
    Hauskrecht 2015; Guo et al. 2017). It cannot be negative, so noise alone makes it positive
    (Roelofs et al. 2022): by sqrt(2 c (1 - c) / (pi n)) in a bin of n with confidence c, the mean
    absolute deviation of a normal share.

    Raises:
        ValueError: a bin has a negative count, or more correct predictions than predictions.
    """
    joined = _joined(bins)
    total = sum(part.count for part in joined)
    if not total:
        return None
    curve = reliability_curve(joined)
    found = [part for part in joined if part.count]
    error = sum(
        part.count * abs(point.accuracy - point.mean_confidence)
        for part, point in zip(found, curve, strict=True)
    )
    noise = sum(
        part.count
        * math.sqrt(
            2 / math.pi * point.mean_confidence * (1 - point.mean_confidence) / part.effective
        )
        for part, point in zip(found, curve, strict=True)
    )
    whole = sum(found, LabelledBin(0, 0.0, 0))
    accuracy, low, high = _share_with_interval(whole)
    return Calibration(
        count=whole.number,
        sampled=whole.squares is not None,
        effective_count=whole.effective,
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        mean_confidence=_share(sum(part.confidence_sum for part in joined), total),
        error=error / total,
        error_noise=noise / total,
        curve=curve,
    )


def reliability_curve(bins: Iterable[LabelledBin]) -> list[ReliabilityPoint]:
    """Accuracy against mean confidence, a point for each bin that is not empty (Guo et al. 2017).

    Raises:
        ValueError: a bin has a negative count, or more correct predictions than predictions.
    """
    points = []
    for part in bins:
        if not 0 <= part.correct <= part.count:
            raise ValueError(
                f"the correct predictions must be between 0 and {part.count}: {part.correct}"
            )
        if part.count:
            accuracy, low, high = _share_with_interval(part)
            points.append(
                ReliabilityPoint(
                    count=part.number,
                    mean_confidence=_share(part.confidence_sum, part.count),
                    accuracy=accuracy,
                    accuracy_low=low,
                    accuracy_high=high,
                )
            )
    return points


def _share_with_interval(part: LabelledBin) -> tuple[float, float, float]:
    """The share that is right and the ends of its interval of Jeffreys.

    With weights it is the ratio of weighted sums (Hajek 1971), and the interval is that of as many
    labels as are effective: of the intervals for shares in surveys with unequal weights, this form
    covers well (Franco, Little, Louis, Slud 2019). An accuracy of 0 or 1 has an end that is exact.
    """
    share = _share(part.correct, part.count)
    right = share * part.effective
    wrong = part.effective - right
    low, high = betaincinv(right + 0.5, wrong + 0.5, INTERVAL)
    return (
        share,
        float(low) if part.correct > 0 else 0.0,
        float(high) if part.count - part.correct > 0 else 1.0,
    )


def _joined(bins: Mapping[int, LabelledBin]) -> list[LabelledBin]:
    width = CONFIDENCE.count // RELIABILITY_BINS
    joined: dict[int, LabelledBin] = {}
    for number, part in sorted(bins.items()):
        joined[number // width] = joined.get(number // width, LabelledBin(0, 0.0, 0)) + part
    return list(joined.values())


def _share(total: float, count: float) -> float:
    """The mean of values in [0, 1], clipped because rounding in the sum may leave the range."""
    return min(max(total / count, 0.0), 1.0)
