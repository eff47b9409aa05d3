"""Drift of what texts are like: the distance between the mean features of two windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from stats.content import CONTENT_FEATURES, PAIRS, SKETCH_VALUES, ContentFeature
from stats.drift import FALSE_ALARMS
from stats.results import ContentDrift, DriftVerdict, MovedFeature

# A mixture moves the means a little: 10 % of German among English tweets is at 0.06, 20 % at 0.2.
MODERATE_DISTANCE = 0.03
SIGNIFICANT_DISTANCE = 0.1
# Standard deviations that are added to those of the features, in the order of CONTENT_FEATURES. In
# most windows no text has an accent or a digit: without them, the first one that has would be a
# distance without bound.
_LEAST_DEVIATIONS = np.array([0.05, 0.1, 0.2, 0.05, 0.05, 0.02, 0.02, 0.02])
# With fewer texts, the covariance is worth nothing.
_FEWEST_TEXTS = 20
_FEATURES = len(CONTENT_FEATURES)
# A feature is named beside a text if it adds this share of the text's contribution.
_NAMED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Texts:
    """The number of texts, the means of their features, and the products of their deviations."""

    count: int
    means: NDArray[np.float64]  # (features,)
    scatter: NDArray[np.float64]  # (features, features), summed over the texts

    @classmethod
    def of(cls, sketches: Iterable[bytes]) -> Texts:
        """Of all `sketches`, as they are stored; those of other features are passed over."""
        size = 8 * SKETCH_VALUES
        whole = b"".join(sketch for sketch in sketches if len(sketch) == size)
        added = np.frombuffer(whole, "<f8").reshape(-1, SKETCH_VALUES).sum(axis=0)
        count, sums = round(added[0]), added[1 : 1 + _FEATURES]
        products = np.zeros((_FEATURES, _FEATURES))
        rows, columns = np.transpose(PAIRS)
        products[rows, columns] = products[columns, rows] = added[1 + _FEATURES :]
        means = sums / max(count, 1)
        return cls(count, means, products - np.outer(sums, means))


def content_drift(reference: Texts, current: Texts) -> ContentDrift:
    """Compare the means of two windows by Hotelling's test (Hotelling 1931).

    The distance is that of Mahalanobis, squared, by the pooled covariance S: d' S^-1 d. Of normal
    distributions with one covariance it is the divergence of Jeffreys, which PSI is of cells.
    Without drift, T^2 = distance n m / (n + m) has the distribution k N / (N - k + 1) F(k, N - k +
    1), for k features and N = n + m - 2. The features are not normal; but they are bounded, and
    the added deviations only lower the distance. `sentiment simulate drift` measures what is left.
    """
    counts = reference.count, current.count
    if min(counts) < _FEWEST_TEXTS:
        return ContentDrift(
            reference_count=counts[0],
            current_count=counts[1],
            distance=None,
            noise=None,
            verdict="too_few",
            features=[],
        )
    degrees = sum(counts) - 2
    covariance = _pooled_covariance(reference, current)
    moved = current.means - reference.means
    distance = float(moved @ np.linalg.solve(covariance, moved))
    scale = _FEATURES * degrees / (degrees - _FEATURES + 1) * (1 / counts[0] + 1 / counts[1])
    noise = scale * float(fdtri(_FEATURES, degrees - _FEATURES + 1, 1 - FALSE_ALARMS))
    shifts = moved / np.sqrt(covariance.diagonal())
    return ContentDrift(
        reference_count=counts[0],
        current_count=counts[1],
        distance=distance,
        noise=noise,
        verdict=_verdict(distance, noise),
        features=[
            MovedFeature(
                name=CONTENT_FEATURES[number],
                reference=float(reference.means[number]),
                current=float(current.means[number]),
                shift=float(shifts[number]),
            )
            for number in np.argsort(-np.abs(shifts))
        ],
    )


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a text adds to the distance of two windows, and the features that add most of it."""

    text: int  # its place
    contribution: float
    features: list[ContentFeature]


def largest_contributions(
    reference: Texts, current: Texts, features: Sequence[Sequence[float]], limit: int
) -> list[Contribution]:
    """The texts with the `limit` largest positive contributions, the largest first.

    `features` has a row for each text. A contribution is (x - m)' S^-1 d, the value of Fisher's
    linear discriminant (Fisher 1936) from the mean m of the reference. Its mean over all texts of
    the current window is the distance d' S^-1 d.
    """
    moved = current.means - reference.means
    direction = np.linalg.solve(_pooled_covariance(reference, current), moved)
    parts = (np.array(features) - reference.means) * direction
    sums = parts.sum(axis=1)
    return [
        Contribution(
            text=int(place),
            contribution=float(sums[place]),
            features=[
                CONTENT_FEATURES[number]
                for number in np.argsort(-parts[place])
                if parts[place, number] >= _NAMED_SHARE * sums[place]
            ],
        )
        for place in np.argsort(-sums, kind="stable")[:limit]
        if sums[place] > 0
    ]


def _pooled_covariance(reference: Texts, current: Texts) -> NDArray[np.float64]:
    degrees = reference.count + current.count - 2
    pooled: NDArray[np.float64] = (reference.scatter + current.scatter) / degrees
    return pooled + np.diag(_LEAST_DEVIATIONS**2)


def _verdict(distance: float, noise: float) -> DriftVerdict:
    """Noise is no verdict; what is above mark and noise is drift, however few texts there are."""
    if distance <= noise and noise > MODERATE_DISTANCE:
        return "too_few"
    if distance < MODERATE_DISTANCE:
        return "stable"
    return "moderate" if distance < SIGNIFICANT_DISTANCE else "significant"
