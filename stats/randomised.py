"""v1 against v2 where the traffic split assigned each text to one of them."""

from __future__ import annotations

from typing import Any

from scipy.special import chdtrc

from stats.arms import ArmsEvidence
from stats.confidence_sequence import arms_confidence_sequence
from stats.outcomes import ArmOutcomes, Interval, TrafficSplit
from stats.sequential import always_valid_p, log_e_split, log_threshold
from stats.wilson import newcombe_bounds

_ALPHA = 0.05
# A mismatch discards the whole test, and every test is checked for it, so a false mismatch must be
# rare: 0.001 is at the strict end of the usual range for this check (0.01 to 0.001). A true
# mismatch is found little later, because traffic is plentiful where labels are few.
ALPHA_SPLIT = 0.001


def compare_arms(v1: ArmOutcomes, v2: ArmOutcomes, split: TrafficSplit) -> dict[str, Any]:
    """Compare two versions that each answered its own texts; returns the statistics by their names.

    A number without data is None. Differences are v2 minus v1. Accuracies and p-values lie in
    [0, 1], differences in [-1, 1]; intervals are 95 % intervals. The always-valid statistics are
    valid at every look at once, the others at a single look that was planned beforehand.
    """
    both = v1.labelled > 0 and v2.labelled > 0
    evidence = ArmsEvidence((v1.right, v1.wrong), (v2.right, v2.wrong), split.label_share)
    return {
        "accuracy_difference": (
            None if v1.accuracy is None or v2.accuracy is None else v2.accuracy - v1.accuracy
        ),
        "accuracy_difference_interval": newcombe_interval(v1, v2),
        "always_valid_interval": (
            arms_confidence_sequence(v1, v2, split.label_share, _ALPHA) if both else None
        ),
        "always_valid_p": always_valid_p(evidence.log_e()) if both else None,
        "split_p": sample_ratio_p_value(split),
        "split_always_valid_p": always_valid_p(log_e_split(split.v1, split.v2, split.v2_share)),
    }


def newcombe_interval(v1: ArmOutcomes, v2: ArmOutcomes) -> Interval | None:
    """95 % hybrid score interval of the accuracy difference, v2 minus v1, in [-1, 1].

    See `newcombe_bounds`. None if an arm has no labels.
    """
    if not v1.labelled or not v2.labelled:
        return None
    low, high = newcombe_bounds(v1.right, v1.labelled, v2.right, v2.labelled)
    return Interval(float(low), float(high))


def is_split_mismatched(split: TrafficSplit, alpha: float = ALPHA_SPLIT) -> bool:
    """Whether the arms have other shares of the subjects than the split gives them.

    At any number of looks, the probability that it ever says so of a correct split is at most
    `alpha` (`log_e_split`).

    Raises:
        ValueError: `alpha` lies outside (0, 1).
    """
    log_e = float(log_e_split(split.v1, split.v2, split.v2_share))
    return log_e >= log_threshold(alpha)


def sample_ratio_p_value(split: TrafficSplit) -> float | None:
    """Pearson's chi-square test (1900) of the assigned subjects against the split, in [0, 1].

    One degree of freedom. None without subjects; with a share of 0 or 1 it is 0 if the arm without
    a share has a subject, else 1. Valid at a single look; `log_e_split` is its sequential form.
    """
    subjects = split.v1 + split.v2
    if not subjects:
        return None
    off = split.v2 - subjects * split.v2_share
    variance = subjects * split.v2_share * (1 - split.v2_share)
    if not variance:
        return 0.0 if off else 1.0
    return float(chdtrc(1, off * off / variance))
