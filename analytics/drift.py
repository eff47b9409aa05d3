"""Whether the traffic has changed: a window beside the one that it is compared with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import anyio.to_thread
from pydantic import BaseModel, Field

from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.reader import Reader
from analytics.sql_fragment import Scope, histogram
from analytics.summary import sentiment_counts
from analytics.time_range import TimeRange
from analytics.window import Window, window
from core.types import Sentiment, Version
from stats.histogram import CONFIDENCE, Counts, merged
from stats.outcomes import LabelledBin


class FeatureDrift(BaseModel):
    reference_count: int
    current_count: int
    psi: float | None = Field(description="Population Stability Index; null if a window is empty")
    psi_noise: float | None = Field(
        description="what samples of these sizes pass in 1 % of comparisons without any drift"
    )
    js_divergence: float | None = Field(description="Jensen-Shannon divergence, 0 to 1 bits")
    verdict: Literal["too_few", "stable", "moderate", "significant"] = Field(
        description="by PSI: below 0.1 stable, from 0.2 significant"
    )


class EstimatedAccuracy(BaseModel):
    """What labels of these predictions would show, from calibrated confidence (CBPE).

    It holds while a given confidence is right as often as in the reference: see docs/statistics.md.
    """

    count: int
    labelled_count: int = Field(description="of the reference")
    accuracy: float
    low: float = Field(description="95 % interval")
    high: float
    supported: float = Field(description="share of predictions as confident as labelled ones were")


class DriftOfTraffic(Window):
    reference_since: datetime
    reference_until: datetime
    sentiment: FeatureDrift
    confidence: FeatureDrift
    text_characters: FeatureDrift
    token_count: FeatureDrift
    estimated_accuracy: dict[Version, EstimatedAccuracy] = Field(
        description="without labels of the window; of versions that the reference has feedback on"
    )


async def drift(reader: Reader, scope: Scope, reference: TimeRange) -> DriftOfTraffic:
    """What the model says and what it is given in `scope`, against the same in `reference`."""
    before_scope = replace(scope, span=reference)
    before, current, labels = await asyncio.gather(
        _profile(reader, before_scope),
        _profile(reader, scope),
        labels_by_version(reader, before_scope),
    )
    report = await anyio.to_thread.run_sync(_report, before, current)
    estimates = await anyio.to_thread.run_sync(_estimates, labels, current.confidence)
    return DriftOfTraffic(
        **window(scope),
        reference_since=reference.since,
        reference_until=reference.until,
        **report,
        estimated_accuracy=estimates,
    )


@dataclass(frozen=True, slots=True)
class _Profile:
    sentiment: Mapping[Sentiment, int]
    confidence: Mapping[Version, Counts]
    text_characters: Counts
    token_count: Counts


async def _profile(reader: Reader, scope: Scope) -> _Profile:
    said, binned = await asyncio.gather(
        sentiment_counts(reader, scope),
        reader.histograms(
            histogram(
                scope, "confidence", "text_characters", "token_count", by=("measure", "version")
            )
        ),
    )
    by_measure: dict[str, dict[Version, Counts]] = defaultdict(dict)
    for (measure, version), counts in binned.items():
        by_measure[measure][version] = counts
    return _Profile(
        said,
        by_measure["confidence"],
        merged(by_measure["text_characters"].values()),
        merged(by_measure["token_count"].values()),
    )


def _report(before: _Profile, current: _Profile) -> dict[str, dict[str, Any]]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.drift import Profile, drift_report

    def profile(of: _Profile) -> Profile:
        confidence = merged(of.confidence.values())
        return Profile(of.sentiment, confidence, of.text_characters, of.token_count)

    return asdict(drift_report(profile(before), profile(current)))


def _estimates(
    labels: LabelsByVersion, confidence: Mapping[Version, Counts]
) -> dict[Version, EstimatedAccuracy]:
    from stats.estimated_accuracy import ConfidenceBin, estimate_accuracy

    estimates = {}
    for version, bins in labels.items():
        # The middle of its bin for every confidence, on both sides: a bin's predictions are taken
        # to be right as often as its labelled ones were.
        told = estimate_accuracy(
            {
                number: LabelledBin(
                    part.count, part.count * CONFIDENCE.value_of(number), part.correct
                )
                for number, part in bins.items()
            },
            {
                number: ConfidenceBin(count, count * CONFIDENCE.value_of(number))
                for number, count in confidence.get(version, {}).items()
            },
        )
        if told is not None:
            estimates[version] = EstimatedAccuracy.model_validate(asdict(told))
    return estimates
