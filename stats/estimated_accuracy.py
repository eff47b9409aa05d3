"""Estimated accuracy of predictions without labels, from calibrated confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from scipy.optimize import isotonic_regression

from stats.outcomes import LabelledBin
from stats.results import EstimatedAccuracy, FeatureDrift
from stats.wilson import Z_95

# Isotonic regression trusts the first and the last bin most, because no bin beyond them can be
# pooled with them: a single wrong label there would mean "never right". Simulated drift towards
# such a bin moved the estimate by 0.09; with ten labels a knot by 0.02 at most, and 91 to 97 % of
# the 95 % intervals cover the truth.
LABELS_PER_KNOT = 10
# Fewer labels give few knots, between which the calibration is not a straight line.
FEW_LABELS = 200
# More predictions elsewhere are estimated by the calibration of other confidences.
LEAST_SUPPORTED = 0.9
# The halves of a reference differ by so many standard errors by chance in 1 % of windows.
_Z_99 = 2.575829303548901


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Predictions of one confidence bin, with or without labels."""

    count: float
    confidence_sum: float


def estimate_accuracy(
    reference: Mapping[int, LabelledBin], current: Mapping[int, ConfidenceBin]
) -> EstimatedAccuracy | None:
    """Mean calibrated confidence of `current`; None without labels or without predictions.

    Confidence-based performance estimation (CBPE) as in NannyML, which Kivimäki, Białek, Kuberski,
    Nurminen (2025, "Confidence-based Estimators for Predictive Performance in Model Monitoring")
    show to be unbiased for a calibrated model. Isotonic regression of correctness on confidence
    (Zadrozny, Elkan 2002) calibrates the confidence. It is fitted to the reference's bins, joined
    to ten labels or more, and interpolated linearly between their mean confidences; it is constant
    beyond the first and the last.

    The number of correct predictions is Poisson binomial, with variance sum p (1 - p); the interval
    uses the normal approximation. The variance of each level of the fit is added: that of a
    binomial share of its labels (with weights, of as many as are effective), with half a label
    added to both outcomes so that a share of 1 is not certain.

    The estimate is valid while a given confidence is correct as often as in the reference, however
    the confidences themselves drift. It is not valid under concept drift (the same texts deserve
    other labels), for kinds of texts on which the model is wrongly confident, for another revision
    of the model, or for a shift between classes whose calibration differs. It is not valid either
    if the reference labels were not sampled at random, for instance if users report only mistakes.

    Raises:
        ValueError: a count is negative, or a bin has more correct predictions than predictions.
    """
    if any(not 0 <= part.correct <= part.count for part in reference.values()):
        raise ValueError("the correct predictions of a bin must be between 0 and its count")
    if any(part.count < 0 for part in current.values()):
        raise ValueError("counts cannot be negative")
    labelled = _knots(reference)
    predicted = [part for part in current.values() if part.count]
    if not labelled or not predicted:
        return None
    total = sum(part.count for part in predicted)
    confidences = [part.confidence_sum / part.count for part in labelled]
    fit = isotonic_regression(
        [part.correct / part.count for part in labelled], weights=[part.count for part in labelled]
    )

    # The weight of each knot's accuracy in the calibrated confidence of each current bin.
    knots = np.identity(len(labelled))
    means = [part.confidence_sum / part.count for part in predicted]
    blend = np.array([np.interp(means, confidences, knot) for knot in knots])
    shares = np.array([part.count / total for part in predicted])
    calibrated = np.clip(fit.x @ blend, 0, 1)  # rounding may leave the range

    levels = fit.x[fit.blocks[:-1]]
    effective = np.add.reduceat([part.count for part in labelled], fit.blocks[:-1]) ** 2 / (
        np.add.reduceat([part.count**2 / part.effective for part in labelled], fit.blocks[:-1])
    )
    smoothed = (levels * effective + 0.5) / (effective + 1)
    level_shares = np.add.reduceat(blend @ shares, fit.blocks[:-1])
    sampling = math.sqrt(shares @ (calibrated * (1 - calibrated)) / total)
    calibration = math.sqrt(np.sum(level_shares**2 * smoothed * (1 - smoothed) / effective))

    accuracy = min(float(calibrated @ shares), 1.0)
    reach = Z_95 * math.hypot(sampling, calibration)
    known = {number for number, part in reference.items() if part.count}
    return EstimatedAccuracy(
        count=int(total),
        labelled_count=sum(part.number for part in reference.values()),
        accuracy=accuracy,
        low=max(accuracy - reach, 0.0),
        high=min(accuracy + reach, 1.0),
        sampling_error=sampling,
        calibration_error=calibration,
        supported=sum(part.count for number, part in current.items() if number in known) / total,
    )


def caveat_of(
    estimate: EstimatedAccuracy,
    earlier: Mapping[int, LabelledBin],
    later: Mapping[int, LabelledBin],
    sentiments: FeatureDrift,
) -> str | None:
    """Why an estimate is not to be trusted, in a sentence; None if nothing speaks against it.

    `earlier` and `later` are the labels of both halves of the reference window: the method is
    checked by estimating the later half, whose labels are known, from the earlier one. It sees what
    changed within the reference, not what changed since. `sentiments` are those of the window
    against the reference: other shares of the classes (label shift) change how often a confidence
    is right.
    """
    if estimate.labelled_count < FEW_LABELS:
        return (
            f"The reference has {estimate.labelled_count:,} labels; below {FEW_LABELS} the "
            "interval is too narrow."
        )
    if sentiments.verdict in ("moderate", "significant"):
        return "The sentiments are others than in the reference, so a confidence may mean less."
    if estimate.supported < LEAST_SUPPORTED:
        return (
            f"The reference has no labels at the confidences of {1 - estimate.supported:.0%} of "
            "the predictions."
        )
    of_later = {
        number: ConfidenceBin(part.count, part.confidence_sum) for number, part in later.items()
    }
    check = estimate_accuracy(earlier, of_later)
    if check is None:
        return "All labels are of one half of the reference, so it cannot be checked."
    whole = reduce(add, later.values())
    actual = whole.correct / whole.count
    # With weights the labels tell less than so many predictions would.
    sampling = check.sampling_error * math.sqrt(whole.count / whole.effective)
    error = math.hypot(sampling, check.calibration_error)
    if abs(actual - check.accuracy) > _Z_99 * error:
        return (
            f"Within the reference the estimate fails: by its first half the second is right in "
            f"{check.accuracy:.1%}, by its labels in {actual:.1%}."
        )
    return None


def _knots(reference: Mapping[int, LabelledBin]) -> list[LabelledBin]:
    """Join neighbouring bins until each has `LABELS_PER_KNOT`; the rest joins the last."""
    knots: list[LabelledBin] = []
    for _, part in sorted(reference.items()):
        if knots and knots[-1].effective < LABELS_PER_KNOT:
            knots[-1] = knots[-1] + part
        elif part.count:
            knots.append(part)
    if len(knots) > 1 and knots[-1].effective < LABELS_PER_KNOT:
        knots[-2:] = [knots[-2] + knots[-1]]
    return knots
