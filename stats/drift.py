"""Drift: the distance between the predictions of a window and those of a reference window."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, rel_entr

from core.types import SENTIMENTS
from stats.histogram import Counts
from stats.outcomes import Profile
from stats.results import DriftVerdict, FeatureDrift

# Siddiqi (2006, "Credit Risk Scorecards"), as Lewis (1994) did, puts the marks at 0.1 and 0.25;
# 0.2 is the stricter upper mark of model monitoring.
MODERATE_PSI = 0.1
SIGNIFICANT_PSI = 0.2
QUANTILE_CELLS = 10
# The share of comparisons without drift that may reach `FeatureDrift.psi_noise`.
FALSE_ALARMS = 0.01
# Of windows that are too small for a verdict, that share of this may be called drift: among so few
# values, PSI exceeds what its distribution says up to three times as often.
_FEW_FALSE_ALARMS = 0.1


def drift_report(reference: Profile, current: Profile) -> dict[str, FeatureDrift]:
    """The drift of every feature, by its name: the results and the inputs of the model."""
    before, now = (
        [profile.sentiment.get(name, 0) for name in SENTIMENTS] for profile in (reference, current)
    )
    return {
        "sentiment": drift_of_cells(before, now),
        "confidence": drift_of_bins(reference.confidence, current.confidence),
        "text_characters": drift_of_bins(reference.text_characters, current.text_characters),
        "token_count": drift_of_bins(reference.token_count, current.token_count),
    }


def drift_of_bins(reference: Counts, current: Counts) -> FeatureDrift:
    """The drift of a histogram, compared over about ten quantile cells of the reference."""
    cuts = quantile_cuts(reference)
    return drift_of_cells(_in_cells(reference, cuts), _in_cells(current, cuts))


def drift_of_cells(
    reference: Sequence[int], current: Sequence[int], false_alarms: float = FALSE_ALARMS
) -> FeatureDrift:
    """The drift of counts per cell; both sequences name the same cells in the same order.

    Without drift, a share of `false_alarms` of all comparisons exceeds the noise.

    The verdict is `too_few` where noise alone could look like drift, unless the PSI is above the
    mark and beyond what a tenth of `false_alarms` would exceed. PSI without drift is distributed as
    (1/N + 1/M) chi^2 with B - 1 degrees of freedom for N and M values in B cells (Yurdakul 2018,
    "Statistical properties of the population stability index"), so its mean is (B - 1)(1/N + 1/M).
    Where its 99th percentile is at most 0.1, values below the marks are a verdict too: from N = M =
    434 for ten cells, 185 for three, 133 for two. Dependent values, such as one text that is sent
    again and again, are noisier.

    Raises:
        ValueError: the lengths differ, or a count is negative.
    """
    sizes = sum(reference), sum(current)
    cells = sum(1 for pair in zip(reference, current, strict=True) if any(pair))
    psi = population_stability_index(reference, current)
    noise: float | None = None
    verdict: DriftVerdict = "too_few"
    if psi is not None:
        noise, sure = (
            float(chdtri(max(cells - 1, 1), share)) * (1 / sizes[0] + 1 / sizes[1])
            for share in (false_alarms, false_alarms * _FEW_FALSE_ALARMS)
        )
        verdict = drift_verdict(psi, noise, sure)
    return FeatureDrift(
        reference_count=sizes[0],
        current_count=sizes[1],
        cells=cells,
        psi=psi,
        psi_noise=noise,
        js_divergence=jensen_shannon_divergence(reference, current),
        verdict=verdict,
    )


def population_stability_index(reference: Sequence[int], current: Sequence[int]) -> float | None:
    """Sum of (p - q) ln(p / q) over the cells' shares p and q, in [0, inf); None if one is empty.

    A cell that is empty on one side counts as half a value there, or PSI would be infinite; a cell
    that is empty on both sides is left out. Symmetric. (Lewis 1994; Siddiqi 2006; it is the
    divergence of Jeffreys 1946.)

    Raises:
        ValueError: the lengths differ, or a count is negative.
    """
    counts = _occupied(reference, current)
    if not counts.any(axis=1).all():
        return None
    p, q = _shares(np.maximum(counts, 0.5))
    return float(np.sum((p - q) * np.log(p / q)))


def jensen_shannon_divergence(reference: Sequence[int], current: Sequence[int]) -> float | None:
    """Mean divergence of both from their mixture, in [0, 1] bits; None if one is empty.

    0 for equal shares, 1 for shares that never meet; near 0 about PSI / (8 ln 2). Symmetric (Lin
    1991). SciPy's `jensenshannon` is its root, but NaN where shares are so close that rounding
    makes the sum negative.

    Raises:
        ValueError: the lengths differ, or a count is negative.
    """
    counts = _occupied(reference, current)
    if not counts.any(axis=1).all():
        return None
    p, q = _shares(counts)
    mixture = (p + q) / 2
    bits = np.sum(rel_entr(p, mixture) + rel_entr(q, mixture)) / (2 * np.log(2))
    return float(np.clip(bits, 0, 1))


def quantile_cuts(reference: Counts, cells: int = QUANTILE_CELLS) -> list[int]:
    """The last bin of each cell but the last; the first and the last cell are open-ended.

    Bins whose middle value lies between the same two of the quantiles 1 / `cells`, 2 / `cells`, ...
    make a cell. A bin that alone holds 1 / `cells` of the values is always a separate cell: joined
    with its neighbours, it would hide the values that move to them, and confidence has most of its
    values in the last bin.
    """
    occupied = sorted((number, count) for number, count in reference.items() if count)
    total = sum(reference.values())
    cuts: set[int] = set()
    below, last_number, last_cell = 0, 0, 0
    for number, count in occupied:
        cell = cells * (2 * below + count) // (2 * total)
        if cells * count >= total:
            cuts |= {number - 1, number}
        elif cell != last_cell:
            cuts.add(last_number)
        below, last_number, last_cell = below + count, number, cell
    return sorted(cuts)


def _in_cells(counts: Counts, cuts: Sequence[int]) -> list[int]:
    cells = [0] * (len(cuts) + 1)
    for number, count in counts.items():
        cells[bisect_left(cuts, number)] += count
    return cells


def _occupied(reference: Sequence[int], current: Sequence[int]) -> NDArray[np.float64]:
    """The counts as two rows, without the cells that are empty in both."""
    pairs = [pair for pair in zip(reference, current, strict=True) if any(pair)]
    if any(count < 0 for pair in pairs for count in pair):
        raise ValueError("counts cannot be negative")
    return np.array(pairs, dtype=np.float64).reshape(-1, 2).T


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def drift_verdict(psi: float, noise: float, sure: float) -> DriftVerdict:
    """The verdict on a PSI that chance takes above `noise` seldom, and above `sure` next to never.

    What is above the mark and `sure` is drift, however few values there are.
    """
    if noise > MODERATE_PSI and psi <= max(sure, MODERATE_PSI):
        return "too_few"
    if psi < MODERATE_PSI:
        return "stable"
    return "moderate" if psi < SIGNIFICANT_PSI else "significant"
