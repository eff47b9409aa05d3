"""The comparison of v1 and v2 over texts that both answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq
from scipy.special import bdtr, stdtrit

from core.types import SENTIMENTS, Sentiment
from stats.confidence_sequence import paired_confidence_sequence
from stats.outcomes import Interval, PairedOutcomes
from stats.sequential import always_valid_p, log_e_discordant
from stats.wilson import Z_95

LabelTable = Mapping[tuple[Sentiment, Sentiment], int]
"""The number of texts by the labels of v1 and v2; an absent pair of labels is 0."""

_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class ConfidenceDifferences:
    """Confidence of v2 minus confidence of v1, summed over `count` texts."""

    count: int
    total: float
    total_of_squares: float


def compare_pairs(
    labels: LabelTable, differences: ConfidenceDifferences, outcomes: PairedOutcomes
) -> dict[str, Any]:
    """Compare two versions that answered the same texts; returns the statistics by their names.

    A number without data is None. Differences are v2 minus v1. Shares, accuracies and p-values lie
    in [0, 1], `kappa` and differences in [-1, 1]; intervals are 95 % intervals. The always-valid
    statistics are valid at every look at once, the others at a single look that was planned
    beforehand.

    Raises:
        ValueError: a count is negative.
    """
    pairs, labelled = sum(labels.values()), outcomes.labelled
    agreeing = sum(labels.get((sentiment, sentiment), 0) for sentiment in SENTIMENTS)
    v1, v2 = outcomes.v1, outcomes.v2
    log_e = log_e_discordant(outcomes.only_v1_right, outcomes.only_v2_right)
    return {
        "pairs": pairs,
        "agreement": agreeing / pairs if pairs else None,
        "kappa": cohen_kappa(labels),
        "confidence_difference": (
            differences.total / differences.count if differences.count else None
        ),
        "confidence_difference_interval": mean_interval(differences),
        "labelled": labelled,
        "v1_accuracy": v1.accuracy,
        "v2_accuracy": v2.accuracy,
        "accuracy_difference": (v2.right - v1.right) / labelled if labelled else None,
        "accuracy_difference_interval": tango_interval(outcomes),
        "mcnemar_p": mcnemar_p_value(outcomes) if labelled else None,
        "always_valid_interval": paired_confidence_sequence(outcomes, _ALPHA) if labelled else None,
        "always_valid_p": always_valid_p(log_e) if labelled else None,
    }


def cohen_kappa(labels: LabelTable) -> float | None:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e), in [-1, 1] (Cohen 1960).

    It is 1 if the versions always agree, and 0 if they agree only as often as by chance. It is None
    without pairs, and if both versions always gave the same single label, which chance explains.

    Raises:
        ValueError: a count is negative.
    """
    if any(count < 0 for count in labels.values()):
        raise ValueError("counts cannot be negative")
    pairs = sum(labels.values())
    agreeing = sum(labels.get((sentiment, sentiment), 0) for sentiment in SENTIMENTS)
    by_chance = sum(
        sum(labels.get((sentiment, other), 0) for other in SENTIMENTS)
        * sum(labels.get((other, sentiment), 0) for other in SENTIMENTS)
        for sentiment in SENTIMENTS
    )
    # Whole numbers, so that rounding does not decide whether 1 - p_e is 0.
    beyond = pairs * pairs - by_chance
    return (pairs * agreeing - by_chance) / beyond if beyond else None


def mean_interval(differences: ConfidenceDifferences) -> Interval | None:
    """95 % interval of the mean difference by Student's t (1908); None for fewer than two.

    Clipped to [-1, 1], where differences of confidence lie.
    """
    count = differences.count
    if count < 2:
        return None
    mean = differences.total / count
    # With equal differences, rounding can make the variance slightly negative.
    variance = max(differences.total_of_squares - differences.total * mean, 0.0) / (count - 1)
    reach = float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)
    return Interval(max(mean - reach, -1.0), min(mean + reach, 1.0))


def mcnemar_p_value(outcomes: PairedOutcomes) -> float:
    """Exact two-sided p-value, in [0, 1], of "where only one is right, it is either as often".

    The binomial test of one half over the discordant pairs, which McNemar (1947) approximates; 1
    without any. Valid at a single look; `log_e_discordant` is its sequential form.
    """
    fewer, more = sorted((outcomes.only_v1_right, outcomes.only_v2_right))
    # Both tails have the same weight; with equal counts they overlap.
    return min(1.0, 2 * float(bdtr(fewer, fewer + more, 0.5)))


def tango_interval(outcomes: PairedOutcomes) -> Interval | None:
    """95 % score interval of the paired accuracy difference, v2 minus v1, in [-1, 1].

    The differences whose score statistic lies within 1.96 (Tango 1998, "Equivalence test and
    confidence interval for the difference in proportions for the paired-sample design", Stat. Med.
    17). It keeps its level with few labels, unlike two standard errors of the mean. Without
    discordant pairs it does not shrink to nothing, but is the Wilson interval. None without labels.
    """
    labelled = outcomes.labelled
    if not labelled:
        return None
    won, lost = outcomes.only_v2_right, outcomes.only_v1_right
    return Interval(-_tango_upper(lost, won, labelled), _tango_upper(won, lost, labelled))


def _tango_upper(won: int, lost: int, labelled: int) -> float:
    observed = (won - lost) / labelled
    if won == labelled:
        return 1.0

    def beyond(difference: float) -> float:
        variance = labelled * _score_variance(difference, won, lost, labelled)
        return labelled * (difference - observed) - Z_95 * math.sqrt(variance)

    # If the variance is 0, the observed difference is a spurious root; the wanted root lies beyond
    # it.
    nearest = observed
    if not _score_variance(observed, won, lost, labelled):
        nearest += Z_95**2 / 2 / (labelled + Z_95**2)
    return float(brentq(beyond, nearest, 1.0))


def _score_variance(difference: float, won: int, lost: int, labelled: int) -> float:
    """Variance of a pair's score, with the likeliest share of lost pairs at `difference`."""
    linear = won * (1 + difference) + lost * (1 - difference) - 2 * labelled * difference
    constant = lost * difference * (1 - difference)
    root = math.sqrt(max(linear * linear + 8 * labelled * constant, 0.0))
    # The form of the quadratic's root in which no digits cancel.
    lost_share = (
        (linear + root) / (4 * labelled) if linear > 0 else 2 * constant / ((root - linear) or 1.0)
    )
    return max(2 * lost_share + difference * (1 - difference), 0.0)
