"""The e-value of two arms, each with texts of its own: how strongly labels refute a difference.

As those of `stats.sequential`, it is valid at any number of looks, from the first label on.

Take as given that v1's accuracy is p, and v2's is p + d. An alternative multiplies the odds of v1's
accuracy by exp(-w s), and those of v2's by exp((1 - w) s). Its likelihood ratio against p and p + d
is the capital of a fair game, and so is a mean over alternatives with weights that were fixed
beforehand (Robbins 1970, Ann. Math. Statist. 41). p is not known: the e-value is the least capital
that any p gives. At the true p the capital is no less, so under a true d the e-value ever
reaches 1 / alpha with a probability of at most alpha (an e-process, as in Ramdas, Grünwald, Vovk,
Shafer 2023, Stat. Sci. 38).

With n1 and n2 labels, of which x1 and x2 are right, the log of the likelihood ratio is
s (-w x1 + (1 - w) x2) - n1 log(1 + p (exp(-w s) - 1)) - n2 log(1 + (p + d) (exp((1 - w) s) - 1)).
It is convex in p and d, and so is the log of a mean. If w is v2's share of the labels, it hardly
depends on p, because w n1 = (1 - w) n2: the bet is on the difference alone (its score is orthogonal
to p, as in Neyman 1959, "Optimal asymptotic tests of composite statistical hypotheses"). So little
is lost by not knowing p.

Alternatives are a grid of s, of both signs, with a w that is chosen before the test, and with less
weight other w. The rest of the weight has, for each arm, a beta mixture centred at its accuracy
(Robbins 1970). It refutes every p that is far from the accuracies seen.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, expit, logit, psi, xlogy, zeta

from stats.convex import newton_zero_of_rising

Numbers = NDArray[np.float64]

# The grid of s, and its weights: greatest near 0.35, which is 85 % against 89 %.
TILTS = 2.0 ** np.arange(-10, 4)
_TILT_WEIGHTS = 1 / (1 + (np.log(TILTS) - math.log(0.35)) ** 2)
# Labels may be shared otherwise than expected. The spacing of these is finer near 0 and 1, where
# more precision is needed.
OTHER_SHARES = np.sin(np.pi / 24 * np.arange(1, 12, 2)) ** 2
# The weights of the share that was expected, of all others, and of the beta mixtures.
SHARE_WEIGHT, OTHER_SHARES_WEIGHT, BETA_WEIGHT = 0.8, 0.15, 0.05
# Pseudo-counts of a beta mixture. 30 is sure of 50 % against 80 % after 120 labels, of 85 % against
# 90 % after 2,400, if nothing else has a weight.
CONCENTRATION = 30.0
# Beyond these log odds, 10^9 labels do not tell an accuracy from 0 or 1.
_MOST_LOG_ODDS = 60.0
_FAR_LOG_ODDS = 5.0


class _Arm(NamedTuple):
    """Labels of an arm, and the accuracy under test. The error is not rounded to 0."""

    right: float
    wrong: float
    accuracy: float
    error: float

    @property
    def labelled(self) -> float:
        return self.right + self.wrong


class _Alternatives(NamedTuple):
    """The factors of the odds under each alternative: their logs, and how far they are above 1."""

    log_weights: Numbers
    v1: Numbers
    v2: Numbers
    v1_excess: Numbers
    v2_excess: Numbers
    beta_log_weight: float


class ArmsEvidence:
    """The evidence of some labels against any difference of the accuracies, v2 minus v1.

    `label_share`, in [0, 1], is the share of the labels that v2 was expected to get before the
    test. The promise holds for any; one that is far from the true share costs labels. With None the
    beta mixtures have all the weight. The arm of the next label may depend on earlier labels.

    Counts may be fractions, but not between 0 and 1. Swapped arms, with the other arm's share and a
    negated difference, have the same evidence.
    """

    def __init__(
        self, v1: tuple[float, float], v2: tuple[float, float], label_share: float | None
    ) -> None:
        """`v1` and `v2` are the labels for which each is right, and is wrong."""
        self._v1, self._v2 = v1, v2
        self._alternatives = _alternatives(label_share)
        pooled = (v1[0] + v2[0] + 0.5) / (sum(v1) + sum(v2) + 1)
        self._pooled = self._log_odds = float(logit(pooled))

    def log_e(self, difference: float = 0.0) -> float:
        """Log of the e-value against "v2's accuracy is that of v1 plus `difference`", in (-1, 1).

        It is convex in `difference`.
        """
        # The search begins where that of the last difference ended, which is often similar.
        is_near = abs(self._log_odds - self._pooled) < _FAR_LOG_ODDS
        self._log_odds = newton_zero_of_rising(
            lambda log_odds: self._slope(log_odds, difference),
            self._log_odds if is_near else self._pooled,
            _MOST_LOG_ODDS,
        )
        log_ratios = self._log_ratios(*self._arms(self._log_odds, difference))
        top = float(log_ratios.max())
        return top + math.log(float(np.exp(log_ratios - top).sum()))

    def _arms(self, log_odds: float, difference: float) -> tuple[_Arm, _Arm]:
        """The worse arm's accuracy is t (1 - |d|), the better one's is |d| more, for 0 < t < 1."""
        of_v1, of_v2, rest = max(-difference, 0.0), max(difference, 0.0), 1 - abs(difference)
        right, wrong = rest * float(expit(log_odds)), rest * float(expit(-log_odds))
        return (
            _Arm(*self._v1, of_v1 + right, of_v2 + wrong),
            _Arm(*self._v2, of_v2 + right, of_v1 + wrong),
        )

    def _log_ratios(self, v1: _Arm, v2: _Arm) -> Numbers:
        """Logs of weight times likelihood ratio: each alternative, and last the beta mixtures."""
        log_weights, v1_logs, v2_logs, v1_excess, v2_excess, beta = self._alternatives
        log_ratios = log_weights.copy()
        for arm, logs, excess in ((v1, v1_logs, v1_excess), (v2, v2_logs, v2_excess)):
            log_ratios += arm.right * logs - arm.labelled * np.log1p(arm.accuracy * excess)
        return np.append(log_ratios, beta + _log_beta(v1) + _log_beta(v2))

    def _slope(self, log_odds: float, difference: float) -> tuple[float, float]:
        """The slope of the log capital in t of `_arms`, and the slope of that in `log_odds`."""
        v1, v2 = self._arms(log_odds, difference)
        log_ratios = self._log_ratios(v1, v2)
        capital = np.exp(log_ratios - log_ratios.max())
        capital /= capital.sum()
        slopes, curvature = np.zeros_like(capital), 0.0
        for arm, excess in ((v1, self._alternatives.v1_excess), (v2, self._alternatives.v2_excess)):
            relative = excess / (1 + arm.accuracy * excess)
            slopes[:-1] -= arm.labelled * relative
            curvature += arm.labelled * float(capital[:-1] @ relative**2)
            of_right, of_wrong = _rise(arm.right, arm.accuracy), _rise(arm.wrong, arm.error)
            slopes[-1] += of_right[0] - of_wrong[0]
            curvature += float(capital[-1]) * (of_right[1] + of_wrong[1])
        slope = float(capital @ slopes)
        curvature += float(capital @ (slopes - slope) ** 2)
        rest = 1 - abs(difference)
        return slope, curvature * rest * float(expit(log_odds) * expit(-log_odds))


def log_e_at_most(
    v1_right: Numbers,
    v1_wrong: Numbers,
    v2_right: Numbers,
    v2_wrong: Numbers,
    difference: float = 0.0,
) -> Numbers:
    """A bound that `ArmsEvidence.log_e` does not exceed, for arrays of looks; nan without labels.

    The capital at any accuracy is a mean of likelihood ratios, so at most the greatest of these.
    """
    v1, v2 = v1_right + v1_wrong, v2_right + v2_wrong
    with np.errstate(invalid="ignore"):
        pooled = (v1_right + v2_right - difference * v2) / (v1 + v2)
        accuracy = np.clip(pooled, max(-difference, 0) + 1e-9, 1 - max(difference, 0) - 1e-9)
        of_arms = (
            (v1_right, v1_wrong, v1, accuracy),
            (v2_right, v2_wrong, v2, accuracy + difference),
        )
        bound = np.zeros_like(accuracy)
        for right, wrong, labelled, under_test in of_arms:
            bound += xlogy(right, right / labelled / under_test)
            bound += xlogy(wrong, wrong / labelled / (1 - under_test))
    return bound


@lru_cache(maxsize=64)
def _alternatives(label_share: float | None) -> _Alternatives:
    if label_share is None:
        none = np.empty(0)
        return _Alternatives(none, none, none, none, none, 0.0)
    shares = np.append(OTHER_SHARES, label_share)[:, np.newaxis]
    of_shares = np.full_like(shares, OTHER_SHARES_WEIGHT / OTHER_SHARES.size)
    of_shares[-1] = SHARE_WEIGHT
    tilts = np.append(-TILTS, TILTS)
    of_tilts = np.append(_TILT_WEIGHTS, _TILT_WEIGHTS) / (2 * _TILT_WEIGHTS.sum())
    v1, v2 = (-shares * tilts).ravel(), ((1 - shares) * tilts).ravel()
    log_weights = np.log(of_shares * of_tilts).ravel()
    return _Alternatives(log_weights, v1, v2, np.expm1(v1), np.expm1(v2), math.log(BETA_WEIGHT))


def _log_beta(arm: _Arm) -> float:
    right, wrong = CONCENTRATION * arm.accuracy, CONCENTRATION * arm.error
    mixture = betaln(right + arm.right, wrong + arm.wrong) - betaln(right, wrong)
    return float(mixture - xlogy(arm.right, arm.accuracy) - xlogy(arm.wrong, arm.error))


def _rise(count: float, share: float) -> tuple[float, float]:
    """Slope of the part of `_log_beta` for `count`, 0 for a count of 1, and the slope of that."""
    if not count:
        return 0.0, 0.0
    prior = CONCENTRATION * share
    slope = CONCENTRATION * float(psi(prior + count) - psi(prior + 1)) - (count - 1) / share
    # zeta(2, x) is the derivative of psi.
    curvature = CONCENTRATION**2 * float(zeta(2, prior + count) - zeta(2, prior + 1))
    return slope, curvature + (count - 1) / share**2
