"""Whether a challenger exceeds the champion by more than a limit, at looks without number.

Every function compares two arms of the same windows and routes, so that a burst or a load that hits
both cancels. A look is an element: counts are arrays of looks, or numbers for a single look. The
frequency of false alarms over whole rollouts is measured, not derived
(`sentiment simulate guardrails`, docs/statistics.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from core.types import ARM_GROUPS
from stats.arm_metrics import ArmCounts
from stats.arms import ArmsEvidence, log_e_at_most
from stats.sequential import log_threshold
from stats.wilson import Numbers, newcombe_bounds, wilson_bounds

Flags = NDArray[np.bool_]

# The one-sided quantile of the fast test of an error rate, and the challenger's texts up to which
# it is used: a fixed quantile is reached by chance if only one looks long enough. After so many, a
# difference that is still unseen is small, and time is not what matters.
FAST_Z = 3.8
FAST_TEXTS = 6_000
# The slow test, which is valid at all looks at once.
SLOW_ALPHA = 0.002
# A sudden failure late in a long step is seen in its last minutes, by a large difference only.
SUDDEN_Z = 5.0
SUDDEN_INCREASE = 0.1
# The challenger's share of failures that is too large without any champion beside it.
ALONE_SHARE = 0.5
# Of latencies and sentiments.
CONFIDENCE = 1 - 1e-4
# Subjects and texts are dealt into so many groups by a hash. Their spread measures how far the
# predictions of one subject resemble each other (random groups: Wolter 2007, chapter 2).
GROUPS = ARM_GROUPS
# By definition, this share of the answers is slower than the 95th percentile.
SLOWEST_SHARE = 0.05


def failures_exceed(
    champion: NDArray[np.float64], challenger: NDArray[np.float64], limit: float
) -> Flags:
    """Whether the challenger's share of failures exceeds the champion's by more than `limit`.

    Both have the axes looks..., group, 2: the texts that failed, and those that were answered. The
    lower end of Newcombe's interval finds large differences within minutes. An e-process
    (`ArmsEvidence` against the limit) finds small ones, at any number of looks. Both
    are of effective counts: divided by the design effects.
    """
    a, n, b, m = _effective(champion, challenger)
    fast = newcombe_bounds(a, n, b, m, FAST_Z).low > limit
    is_early = challenger.sum(axis=(-2, -1)) <= FAST_TEXTS
    is_seen = np.asarray(fast & is_early)
    # What is seen already needs no second test.
    return is_seen | _exceed_slowly(a, np.where(is_seen, 0.0, n), b, m, limit)


def failures_jump(
    champion: NDArray[np.float64], challenger: NDArray[np.float64], limit: float
) -> Flags:
    """Whether it exceeds the limit by more than `SUDDEN_INCREASE`, within minutes.

    Without any text of the champion: whether more than half of the challenger's fail.
    """
    a, n, b, m = _effective(champion, challenger)
    least = newcombe_bounds(a, n, b, m, SUDDEN_Z).low
    alone = wilson_bounds(b, m, SUDDEN_Z).low > ALONE_SHARE
    return np.where(n > 0, least > limit + SUDDEN_INCREASE, alone)


def _effective(champion: NDArray[np.float64], challenger: NDArray[np.float64]) -> list[Numbers]:
    """Of each arm, the effective texts that failed, and all of them."""
    counts: list[Numbers] = []
    for arm in (champion, challenger):
        effect = design_effect(arm).design_effect
        failed, answered = np.moveaxis(arm.sum(axis=-2), -1, 0)
        counts += [failed / effect, (failed + answered) / effect]
    return counts


def _exceed_slowly(a: Numbers, n: Numbers, b: Numbers, m: Numbers, limit: float) -> Flags:
    """`a` of `n` failed at the champion, `b` of `m` at the challenger; not without texts."""
    threshold = log_threshold(SLOW_ALPHA)
    known = (n > 0) & (m > 0)
    is_above = known & (b * n - a * m > limit * n * m)
    index = np.flatnonzero(is_above)
    a, n, b, m = (values.ravel()[index] for values in (a, n, b, m))
    # Few looks need more than a bound.
    at_most = log_e_at_most(a, n - a, b, m - b, limit)
    exceeds = np.zeros(is_above.size, dtype=np.bool_)
    for place in np.flatnonzero(at_most >= threshold):
        # The challenger's share of the texts so far stands for its share of those of the step.
        evidence = ArmsEvidence(
            (float(a[place]), float(n[place] - a[place])),
            (float(b[place]), float(m[place] - b[place])),
            label_share=float(m[place] / (n[place] + m[place])),
        )
        exceeds[index[place]] = evidence.log_e(limit) >= threshold
    return exceeds.reshape(is_above.shape)


def failures_of(arm: ArmCounts) -> NDArray[np.float64]:
    """The texts of each group that failed, and those that were answered."""
    table = np.array(arm.outcome_table(), dtype=np.float64)
    return np.stack([table[:, -1], table[:, :-1].sum(axis=1)], axis=1)


def sentiments_of(arm: ArmCounts) -> NDArray[np.float64]:
    """The sentiments of each group."""
    return np.array(arm.outcome_table(), dtype=np.float64)[:, :-1]


class Grouped(NamedTuple):
    """Effective counts of an arm whose predictions resemble each other within a group."""

    design_effect: Numbers  # at least 1
    degrees_of_freedom: Numbers


def design_effect(counts: NDArray[np.float64]) -> Grouped:
    """How much more the shares of cells vary than those of independent values.

    `counts` has the axes looks..., group, cell. The mean of the cells' design effects (Rao, Scott
    1981, J. Am. Stat. Assoc. 76), by the spread of the groups.
    """
    of_group, of_cell = counts.sum(axis=-1), counts.sum(axis=-2)
    total = of_group.sum(axis=-1)
    safe = np.maximum(total, 1.0)
    shares = of_cell / safe[..., None]
    off = counts - of_group[..., None] * shares[..., None, :]
    groups = counts.shape[-2]
    spread = groups / (groups - 1) * (off**2).sum(axis=-2) / safe[..., None]
    occupied = shares > 0
    cells = np.maximum(occupied.sum(axis=-1) - 1, 1)
    effect = np.where(occupied, spread / np.where(occupied, shares, 1.0), 0.0).sum(axis=-1) / cells
    # As many groups of equal size would weigh as much.
    effective = total**2 / np.maximum((of_group**2).sum(axis=-1), 1.0)
    return Grouped(np.maximum(effect, 1.0), np.maximum(effective - 1, 1.0))


def psi_at_least(champion: NDArray[np.float64], challenger: NDArray[np.float64]) -> Numbers:
    """The lower bound of the Population Stability Index of two arms, 0 where one is empty.

    Both have the axes looks..., group, cell. PSI is a squared distance: without drift it is
    distributed as v chi^2 with v = 1/N + 1/M (Yurdakul 2018), with drift as the non-central one, so
    its root is nearly normal with a deviation of root v. N and M are effective: divided by the
    design effects.
    """
    p, q = champion.sum(axis=-2), challenger.sum(axis=-2)
    known = (p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0)
    occupied = (p > 0) | (q > 0)
    ps, qs = (_shares(counts, occupied) for counts in (p, q))
    psi = np.where(occupied, (ps - qs) * np.log(ps / qs), 0.0).sum(axis=-1)
    groups = design_effect(champion), design_effect(challenger)
    variance = groups[0].design_effect / np.maximum(p.sum(axis=-1), 1.0) + groups[
        1
    ].design_effect / np.maximum(q.sum(axis=-1), 1.0)
    freedom = np.minimum(groups[0].degrees_of_freedom, groups[1].degrees_of_freedom)
    cells = np.maximum(occupied.sum(axis=-1), 2)
    reach = stdtrit(freedom, CONFIDENCE) * np.sqrt(variance)
    least = np.maximum(np.sqrt(psi) - reach, 0.0) ** 2 - (cells - 2) * variance
    return np.where(known, np.maximum(least, 0.0), 0.0)


def _shares(counts: Numbers, occupied: Flags) -> Numbers:
    # A cell that is empty on one side counts as half a value there, or PSI would be infinite.
    filled = np.where(occupied, np.maximum(counts, 0.5), 1.0)
    return np.asarray(
        filled / np.where(occupied, filled, 0.0).sum(axis=-1, keepdims=True).clip(1e-9)
    )


class SlowAnswers(NamedTuple):
    """The comparison of latencies: the champion's quantile, the limit, and the shares above."""

    quantile: Numbers
    limit: Numbers
    champion_share: Numbers  # above the quantile
    challenger_share: Numbers  # above the limit
    exceeds: Flags


def latency_exceeds(
    champion: NDArray[np.float64], challenger: NDArray[np.float64], values: Numbers,
    ratio: float, least: float,
) -> SlowAnswers:  # fmt: skip
    """Whether the challenger's 95th percentile exceeds `ratio` times the champion's.

    Both have the axes looks..., group, bin; `values` are those of the bins, ascending. More of the
    challenger's answers lie above the limit than of the champion's above its quantile: the lower
    end of Newcombe's interval of effective counts. A difference below `least` never exceeds.
    """
    of_bin = champion.sum(axis=-2)
    below = np.cumsum(of_bin, axis=-1)
    total = below[..., -1:]
    place = np.argmax(below >= (1 - SLOWEST_SHARE) * total, axis=-1)
    quantile = values[place]
    limit = np.maximum(quantile * ratio, quantile + least)
    first = _above(champion, values, quantile)
    second = _above(challenger, values, limit)
    groups = design_effect(first), design_effect(second)
    counts = [
        (arm.sum(axis=-2) / group.design_effect[..., None])
        for arm, group in zip((first, second), groups, strict=True)
    ]
    freedom = np.minimum(groups[0].degrees_of_freedom, groups[1].degrees_of_freedom)
    low = newcombe_bounds(
        counts[0][..., 0], counts[0].sum(axis=-1), counts[1][..., 0], counts[1].sum(axis=-1),
        stdtrit(freedom, CONFIDENCE),
    ).low  # fmt: skip
    champion_share, challenger_share = (
        arm[..., 0] / np.maximum(arm.sum(axis=-1), 1e-9) for arm in counts
    )
    return SlowAnswers(quantile, limit, champion_share, challenger_share, np.asarray(low > 0))


def _above(counts: NDArray[np.float64], values: Numbers, limit: Numbers) -> NDArray[np.float64]:
    """Counts above and not above the limit, in the axes looks..., group, 2."""
    is_above = values > np.asarray(limit)[..., None, None]
    above = np.where(is_above, counts, 0.0).sum(axis=-1)
    return np.stack([above, counts.sum(axis=-1) - above], axis=-1)
