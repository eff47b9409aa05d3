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
from scipy.special import betaln, xlogy

LogE = NDArray[np.float64]

# Pseudo-counts of the prior on v2's share, whose mean is the configured share. At 50/50 and an
# alpha of 0.001, 100 finds a dead arm after 45 subjects, 45/55 after 1,800, 49/51 after 50,000; 2
# takes 14, 2,100 and 61,000; 10,000 takes 380, 4,500 and 47,000.
SPLIT_CONCENTRATION = 100.0


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
