"""Sequential statistics of the A/B test, which are valid at any number of looks.

An e-value is the capital of a gambler who started with 1, in a game that is fair if the hypothesis
is true. Under a true hypothesis it ever reaches 1 / alpha with a probability of at most alpha
(Ville 1939). A look may come at any time, and the test may end at any look. The statistics depend
only on the current counts, not on earlier looks. No bound is asymptotic: each is valid from the
first label.

The bounds need counts that grow from a start that was fixed beforehand, not a sliding window.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, psi, xlogy

from stats.convex import zero_of_rising

LogE = NDArray[np.float64]

# Pseudo-counts of the prior on v2's share, whose mean is the configured share. At 50/50 and an
# alpha of 0.001, 100 finds a dead arm after 45 subjects, 45/55 after 1,800, 49/51 after 50,000; 2
# takes 14, 2,100 and 61,000; 10,000 takes 380, 4,500 and 47,000.
SPLIT_CONCENTRATION = 100.0
# The same for an arm's accuracy. At 50/50 and an alpha of 0.05, 30 is sure of 85 % against 90 %
# after 2,400 labels, of 50 % against 80 % after 120, of none against all after 23; 2 takes 3,600,
# 140 and 9; 100 takes 2,100, 160 and 39. A fixed-sample test with a power of 80 % takes 1,400, 72.
ARM_CONCENTRATION = 30.0


def log_e_discordant(only_v1_right: ArrayLike, only_v2_right: ArrayLike) -> LogE:
    """Log of the e-value against "where only one version is right, it is either as often".

    The likelihood ratio of a uniform mixture of shares against one half, in closed form
    2^(b + c) B(1 + b, 1 + c) (Robbins 1970, Ann. Math. Statist. 41; a mixture SPRT as in Johari,
    Koomen, Pekelis, Walsh 2022, Oper. Res. 70). It is a sequential McNemar test: pairs where both
    or neither are right do not matter. Symmetric. Arrays are processed element by element.

    The hypothesis is that the next discordant pair favours either version with one half, whatever
    came before. A text that is sent again and again must therefore count as a single pair. At 10^9
    pairs rounding moves the result by 1e-5.
    """
    b, c = _array(only_v1_right), _array(only_v2_right)
    return _array(betaln(1 + b, 1 + c) + (b + c) * math.log(2))


def log_e_arms(
    v1_right: float, v1_wrong: float, v2_right: float, v2_wrong: float, difference: float = 0.0
) -> float:
    """Log of the e-value against "v2's accuracy is that of v1 plus `difference`", in (-1, 1).

    Were p the accuracy of v1, the likelihood ratio of a beta mixture (Robbins 1970) centred at its
    own accuracy would be the capital of a fair game for each arm, and so would be their product. p
    is not known: the e-value is the least product that any p gives, so at most that of the true p
    (an e-process, as in Ramdas, Grünwald, Vovk, Shafer 2023, Stat. Sci. 38). Its log is the least
    of a function that is jointly convex in p and `difference`.

    The arms may have any sizes, and the arm of the next label may depend on earlier labels. Swapped
    arms with a negated difference give the same value. Counts may be fractions, but not between 0
    and 1.
    """
    if difference < 0:
        return log_e_arms(v2_right, v2_wrong, v1_right, v1_wrong, -difference)
    rest = 1 - difference

    # The accuracies are t (1 - d) and t (1 - d) + d. The error rates are computed separately, so
    # that neither is rounded to 0.
    def slope(t: float) -> float:
        return (
            _rise(v1_right, rest * t)
            - _rise(v1_wrong, difference + rest * (1 - t))
            + _rise(v2_right, difference + rest * t)
            - _rise(v2_wrong, rest * (1 - t))
        )

    t = zero_of_rising(slope)
    return _log_e_arm(v1_right, v1_wrong, rest * t, difference + rest * (1 - t)) + _log_e_arm(
        v2_right, v2_wrong, difference + rest * t, rest * (1 - t)
    )


def _log_e_arm(right: float, wrong: float, accuracy: float, error: float) -> float:
    prior_right, prior_wrong = ARM_CONCENTRATION * accuracy, ARM_CONCENTRATION * error
    mixture = betaln(prior_right + right, prior_wrong + wrong) - betaln(prior_right, prior_wrong)
    return float(mixture - xlogy(right, accuracy) - xlogy(wrong, error))


def _rise(count: float, share: float) -> float:
    """Slope of the part of `_log_e_arm` for `count`: rising in `share`, 0 for a count of 1."""
    if not count:
        return 0.0
    prior = ARM_CONCENTRATION * share
    return ARM_CONCENTRATION * float(psi(prior + count) - psi(prior + 1)) - (count - 1) / share


def log_e_split(v1: ArrayLike, v2: ArrayLike, v2_share: float) -> LogE:
    """Log of the e-value against "v2 gets `v2_share` of the subjects": the sequential SRM test.

    The Dirichlet mixture of Lindon and Malek (2022, "Anytime-valid inference for multinomial count
    data", NeurIPS 35) for two arms, its prior centred on the configured share. With a share of 0 or
    1, a single subject in the arm without a share is infinite evidence. Arrays are processed
    element by element.
    """
    subjects_1, subjects_2 = _array(v1), _array(v2)
    if v2_share in (0, 1):
        misplaced = subjects_1 if v2_share == 1 else subjects_2
        return np.where(misplaced > 0, np.inf, 0.0)
    prior_1, prior_2 = SPLIT_CONCENTRATION * (1 - v2_share), SPLIT_CONCENTRATION * v2_share
    mixture = betaln(prior_1 + subjects_1, prior_2 + subjects_2) - betaln(prior_1, prior_2)
    return _array(mixture - xlogy(subjects_1, 1 - v2_share) - xlogy(subjects_2, v2_share))


def always_valid_p(log_e: ArrayLike) -> float:
    """The always-valid p-value min(1, 1 / e), in [0, 1].

    For a true hypothesis it ever is alpha or less with a probability of at most alpha. Johari et
    al. (2022) use the smallest value so far; this is the current value, and it may rise again.
    """
    return math.exp(-max(float(_array(log_e)), 0.0))


def log_threshold(alpha: float) -> float:
    """The threshold log(1 / alpha) of a log e-value.

    Under a true hypothesis, a log e-value ever reaches it with a probability of at most alpha.

    Raises:
        ValueError: `alpha` lies outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1): {alpha}")
    return -math.log(alpha)


def _array(values: ArrayLike) -> LogE:
    return np.asarray(values, dtype=np.float64)
