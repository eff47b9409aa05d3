"""Verdicts: the better version, or the number of labels that would decide it.

Verdicts use only the always-valid statistics. A reader may look at them after every label and end
the test at the first verdict, and the promised error rate still holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

from stats.arms import ArmsEvidence
from stats.outcomes import ArmOutcomes, PairedOutcomes, TrafficSplit
from stats.randomised import ALPHA_SPLIT, is_split_mismatched
from stats.results import LabelsNeeded, Verdict
from stats.sequential import log_e_discordant, log_threshold

ALPHA = 0.05
MAX_LABELS = 10**9

_NO_LABELS = Verdict(
    finding="no_difference_yet",
    sentence="There are too few true labels to compare the accuracies of the versions.",
    more_labels=None,
)


def paired_verdict(outcomes: PairedOutcomes, alpha: float = ALPHA) -> Verdict:
    """The verdict over labelled pairs, by `log_e_discordant`.

    The probability that it ever, in any number of looks, calls a version better that is not better
    is at most `alpha`.

    Raises:
        ValueError: `alpha` lies outside (0, 1).
    """
    limit, labelled = log_threshold(alpha), outcomes.labelled
    v1_only, v2_only = outcomes.only_v1_right, outcomes.only_v2_right
    if not labelled:
        return _NO_LABELS
    further = _further_labels(
        lambda scale: float(log_e_discordant(v1_only * scale, v2_only * scale)), labelled, limit
    )
    v1_accuracy = (outcomes.both_right + v1_only) / labelled
    v2_accuracy = (outcomes.both_right + v2_only) / labelled
    return _verdict(
        f"of {labelled:,} labelled pairs v1 is right in {v1_accuracy:.2%}, v2 in {v2_accuracy:.2%}",
        v2_accuracy - v1_accuracy,
        None if further is None else LabelsNeeded(v1=further, v2=further),
        f"{further:,} more labelled pairs" if further else "",
    )


def randomised_verdict(
    v1: ArmOutcomes,
    v2: ArmOutcomes,
    split: TrafficSplit,
    alpha: float = ALPHA,
    alpha_split: float = ALPHA_SPLIT,
) -> Verdict:
    """The verdict over two arms, by `ArmsEvidence`, unless `log_e_split` finds a mismatch.

    The probability that it ever, in any number of looks, calls a version better that is not better
    is at most `alpha`. The probability that it ever finds a mismatch in a correct split is at most
    `alpha_split`. A mismatch overrides the comparison: something besides chance assigns the texts,
    and one arm may get the easier texts.

    Raises:
        ValueError: an alpha lies outside (0, 1).
    """
    limit = log_threshold(alpha)
    if is_split_mismatched(split, alpha_split):
        return Verdict(finding="sample_ratio_mismatch", sentence=_mismatch(split), more_labels=None)
    if not v1.labelled or not v2.labelled:
        return _NO_LABELS
    labelled = v1.labelled + v2.labelled
    further = _further_labels(
        lambda scale: ArmsEvidence(
            (v1.right * scale, v1.wrong * scale),
            (v2.right * scale, v2.wrong * scale),
            split.label_share,
        ).log_e(),
        labelled,
        limit,
    )
    v1_accuracy, v2_accuracy = v1.right / v1.labelled, v2.right / v2.labelled
    needed = None
    if further is not None:
        needed = LabelsNeeded(
            v1=math.ceil(further * v1.labelled / labelled),
            v2=math.ceil(further * v2.labelled / labelled),
        )
    return _verdict(
        f"v1 is right in {v1_accuracy:.2%} of {v1.labelled:,} labelled predictions, "
        f"v2 in {v2_accuracy:.2%} of {v2.labelled:,}",
        v2_accuracy - v1_accuracy,
        needed,
        f"{needed.v1:,} more labels of v1 and {needed.v2:,} of v2" if needed else "",
    )


def _further_labels(log_e_at: Callable[[float], float], labelled: int, limit: float) -> int | None:
    """The number of further labels that reach the limit with the same shares.

    None above `MAX_LABELS`. With constant shares, a log e-value is 0 without labels and convex in
    their number, or a minimum of such functions. So once above the limit it stays above, and nearly
    on a straight line.
    """

    def missing(more: float) -> float:
        return log_e_at(1 + more / labelled) - limit

    if missing(0) >= 0:
        return 0
    if missing(MAX_LABELS) < 0:
        return None
    further = math.ceil(brentq(missing, 0, MAX_LABELS, xtol=1e-3))
    # Rounding may have left it just below the limit.
    return further if missing(further) >= 0 else further + 1


def _verdict(facts: str, difference: float, needed: LabelsNeeded | None, effort: str) -> Verdict:
    if needed and not needed.v1:
        better = "v2" if difference > 0 else "v1"
        finding, sentence = f"{better}_better", f"{better} is better: {facts}."
    else:
        finding, sentence = "no_difference_yet", f"No difference is certain yet: {facts}."
        if needed:
            sentence += f" If these were the true accuracies, about {effort} would settle it."
    return Verdict(finding=finding, sentence=sentence, more_labels=needed)


def _mismatch(split: TrafficSplit) -> str:
    subjects = split.v1 + split.v2
    return (
        f"The traffic is not split as configured: {split.v2:,} of {subjects:,} subjects "
        f"({split.v2 / subjects:.2%}) were assigned to v2 instead of {split.v2_share:.2%}. "
        "The versions cannot be compared before the cause is found."
    )
