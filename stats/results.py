"""The results of the statistics, which are part of replies of /analytics; they need no SciPy.

A docstring here, and the description of a field, is also that of the OpenAPI document.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Finding = Literal["v2_better", "v1_better", "no_difference_yet", "sample_ratio_mismatch"]
DriftVerdict = Literal["too_few", "stable", "moderate", "significant"]


class Result(BaseModel):
    """A frozen result; the values of its fields may be objects with the nested attributes."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


# Further labels for the predictions of each version; a labelled pair counts for both.
class LabelsNeeded(Result):
    v1: int
    v2: int


# `more_labels` is 0 for both versions once the test is decided. It is None if nothing differs, if a
# version has no labels, after a mismatch, and above 10^9. With the observed accuracies, two tests
# in three would be decided sooner; but early accuracies are uncertain, so the number can be far
# off.
class Verdict(Result):
    """Holds however often it is read, as long as `since` stays the same (docs/statistics.md)."""

    finding: Finding
    sentence: str
    more_labels: LabelsNeeded | None = Field(
        description="that would settle the test if the observed accuracies were the true ones; "
        "null if no number would, or if a version has no labels"
    )


# All but `count` lie in [0, 1]. The interval is that of Jeffreys for a binomial share (Brown, Cai,
# DasGupta 2001).
class ReliabilityPoint(Result):
    """Labelled predictions of similar confidence; if calibrated, accuracy equals confidence."""

    count: int
    mean_confidence: float
    accuracy: float
    accuracy_low: float = Field(description="95 % interval")
    accuracy_high: float


# Every number but the counts lies in [0, 1]. An error of the size of `error_noise` or less is no
# evidence.
class Calibration(Result):
    count: int = Field(description="predictions with a true label")
    sampled: bool = Field(
        description="whether these are the labels of the review queue, by their weights; otherwise "
        "they are the ordinary ones, of equal weight"
    )
    effective_count: float = Field(description="labels of equal weight that would tell as much")
    accuracy: float
    accuracy_low: float = Field(description="95 % interval")
    accuracy_high: float
    mean_confidence: float
    error: float = Field(description="expected calibration error, over ten bins")
    error_noise: float = Field(
        description="the error that a perfectly calibrated model would have by chance"
    )
    curve: list[ReliabilityPoint]


# `psi` lies in [0, inf). `cells` is the number of compared categories or ranges of bins.
class FeatureDrift(Result):
    reference_count: int
    current_count: int
    cells: int = Field(exclude=True)
    psi: float | None = Field(description="Population Stability Index; null if a window is empty")
    psi_noise: float | None = Field(
        description="the PSI that 1 % of comparisons of this size exceed without any drift"
    )
    js_divergence: float | None = Field(description="Jensen-Shannon divergence, 0 to 1 bits")
    verdict: DriftVerdict = Field(description="by PSI: below 0.1 stable, from 0.2 significant")


# `shift` is signed, in standard deviations of single texts.
class MovedFeature(Result):
    name: str
    reference: float = Field(description="mean of the reference")
    current: float
    shift: float = Field(description="in standard deviations of single texts")


class ContentDrift(Result):
    """How far apart the texts of both windows are, by a sample of their features."""

    reference_count: int = Field(description="texts in the sample")
    current_count: int
    distance: float | None = Field(
        description="squared Mahalanobis distance of the mean features; null with too few texts"
    )
    noise: float | None = Field(
        description="the distance that at most 1 % of comparisons of this size exceed without drift"
    )
    verdict: DriftVerdict = Field(
        description="by the distance: below 0.03 stable, from 0.1 significant"
    )
    features: list[MovedFeature] = Field(description="those that moved most come first")


# The interval combines two standard errors: `sampling_error`, because the predictions are finitely
# many, and `calibration_error`, because the reference labels are. Predictions that are not
# `supported` use the nearest bins.
class EstimatedAccuracy(Result):
    """The accuracy that labels would show, estimated from calibrated confidence (CBPE).

    It holds while a confidence is right as often as in the reference (docs/statistics.md).
    """

    count: int
    labelled_count: int = Field(description="of the reference")
    accuracy: float
    low: float = Field(description="95 % interval")
    high: float
    sampling_error: float = Field(exclude=True)
    calibration_error: float = Field(exclude=True)
    supported: float = Field(
        description="share of predictions in confidence bins that the reference has labels for"
    )
    caveat: str | None = Field(
        None, description="why not to trust it; null if the reference shows no reason"
    )
