"""Confidence sequences: intervals of the accuracy difference that are valid at every look at once.

Both contain the differences whose e-value stays below 1 / alpha. So each excludes 0 exactly when
the e-value of `sequential` against "no difference" exceeds 1 / alpha. The log of each e-value is
convex in the difference and at most 0 at the observed difference. So these differences form an
interval, and a root finder finds its ends.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import xlogy

from stats.arms import ArmsEvidence
from stats.convex import upper_end, zero_of_rising
from stats.outcomes import ArmOutcomes, Interval, PairedOutcomes
from stats.sequential import log_threshold

_NODES, _WEIGHTS = leggauss(128)
# An integrand below e^-40 of its peak is lost to rounding.
_NEGLIGIBLE = 40.0


def paired_confidence_sequence(outcomes: PairedOutcomes, alpha: float) -> Interval:
    """Accuracy of v2 minus accuracy of v1 over the same texts, in [-1, 1], at level 1 - alpha.

    A pair scores 1 if only v2 is right, -1 if only v1 is, else 0. If the mean score is d, the
    product of 1 + lambda (score - d) is the capital of a fair game for every lambda that cannot
    lose more than there is, and so is its mixture over lambda, which depends on the counts alone
    (Waudby-Smith, Ramdas 2024, "Estimating means of bounded random variables by betting", J. R.
    Stat. Soc. B 86; Orabona, Jun 2024, IEEE Trans. Inf. Theory 70). Here lambda is uniform over its
    whole range, -1 / (1 - d) to 1 / (1 + d), so that at d = 0 the capital is `log_e_discordant`.

    It covers the true difference at all looks with a probability of at least 1 - alpha, for any
    number of pairs, if that difference stays the same over time. [-1, 1] without labels.

    Raises:
        ValueError: `alpha` lies outside (0, 1).
    """
    limit = log_threshold(alpha)
    if not outcomes.labelled:
        return Interval(-1.0, 1.0)
    won, lost, tied = outcomes.only_v2_right, outcomes.only_v1_right, outcomes.concordant
    difference = (won - lost) / outcomes.labelled
    return Interval(
        low=-upper_end(partial(_log_capital, lost, won, tied), -difference, limit),
        high=upper_end(partial(_log_capital, won, lost, tied), difference, limit),
    )


def arms_confidence_sequence(
    v1: ArmOutcomes, v2: ArmOutcomes, label_share: float | None, alpha: float
) -> Interval:
    """Accuracy of v2 minus accuracy of v1, each over texts of its own, in [-1, 1].

    The differences against which `ArmsEvidence` does not speak: an e-value for each, inverted
    (Howard, Ramdas, McAuliffe, Sekhon 2021, Ann. Statist. 49). `label_share` is that of v2, as
    expected before the test.

    It covers the true difference at all looks with a probability of at least 1 - alpha, for arms of
    any sizes, if both accuracies stay the same over time. [-1, 1] if an arm has no labels.

    Raises:
        ValueError: `alpha` lies outside (0, 1).
    """
    limit = log_threshold(alpha)
    if not v1.labelled or not v2.labelled:
        return Interval(-1.0, 1.0)
    evidence = ArmsEvidence((v1.right, v1.wrong), (v2.right, v2.wrong), label_share)
    difference = v2.right / v2.labelled - v1.right / v1.labelled
    return Interval(
        low=-upper_end(lambda opposite: evidence.log_e(-opposite), -difference, limit),
        high=upper_end(evidence.log_e, difference, limit),
    )


def _log_capital(won: int, lost: int, tied: int, difference: float) -> float:
    """The capital against a mean score of `difference`.

    With lambda at the share u of its range, a win multiplies the stake by 2u / (1 + d), a loss by
    2(1 - u) / (1 - d) and a tie by the mean of both, u / (1 + d) + (1 - u) / (1 - d). The log of
    the product is concave in u and, for each u, convex in d.
    """
    win, loss = 1 / (1 + difference), 1 / (1 - difference)

    def slope(u: float) -> float:
        return lost / (1 - u) - won / u - tied * (win - loss) / (u * win + (1 - u) * loss)

    def log_product(u: NDArray[np.float64] | float) -> NDArray[np.float64]:
        logs = (
            xlogy(won, 2 * win * u)
            + xlogy(lost, 2 * loss * (1 - u))
            + xlogy(tied, win * u + loss * (1 - u))
        )
        return np.asarray(logs, dtype=np.float64)

    peak = zero_of_rising(slope)  # of minus the log, which is convex
    top = float(log_product(peak))
    narrowest = 1 / (won + lost + tied + 2)

    def reach(direction: int) -> float:
        step = narrowest
        while 0 < peak + direction * step < 1:
            if log_product(peak + direction * step) < top - _NEGLIGIBLE:
                return peak + direction * step
            step *= 2
        return float(direction > 0)

    low, high = reach(-1), reach(1)
    u = low + (high - low) * (1 + _NODES) / 2
    mean = _WEIGHTS @ np.exp(log_product(u) - top) / 2
    return float(top + np.log(mean * (high - low)))
