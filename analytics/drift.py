"""Drift of the traffic: the predictions of a window against those of a reference window."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import anyio.to_thread

from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.reader import Reader
from analytics.rollups import MeasureName
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import histograms
from analytics.summary import sentiment_counts
from analytics.time_range import TimeRange
from core.types import Sentiment, Version
from stats.histogram import CONFIDENCE, Counts, merged
from stats.outcomes import LabelledBin

if TYPE_CHECKING:
    from stats.drift import Drift, DriftReport
    from stats.estimated_accuracy import EstimatedAccuracy


class TrafficDrift(NamedTuple):
    """Accuracy is estimated for the versions with feedback in the reference window."""

    sentiment: Drift
    confidence: Drift
    text_characters: Drift
    token_count: Drift
    estimated_accuracy: Mapping[Version, EstimatedAccuracy]


async def drift(reader: Reader, scope: Scope, reference: TimeRange) -> TrafficDrift:
    """Compare sentiments, confidence and lengths in `scope` with those in `reference`."""
    before_scope = replace(scope, span=reference)
    before, current, labels = await asyncio.gather(
        _profile(reader, before_scope),
        _profile(reader, scope),
        labels_by_version(reader, before_scope),
    )
    report = await anyio.to_thread.run_sync(_report, before, current)
    estimates = await anyio.to_thread.run_sync(_estimates, labels, current.confidence)
    return TrafficDrift(
        report.sentiment, report.confidence, report.text_characters, report.token_count, estimates
    )


@dataclass(frozen=True, slots=True)
class _Profile:
    sentiment: Mapping[Sentiment, int]
    confidence: Mapping[Version, Counts]
    text_characters: Counts
    token_count: Counts


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    measures: tuple[MeasureName, ...] = ("confidence", "text_characters", "token_count")
    return histograms(shape, *measures, by=("measure", "version"))


async def _profile(reader: Reader, scope: Scope) -> _Profile:
    sentiments, binned = await asyncio.gather(
        sentiment_counts(reader, scope),
        reader.histograms(_histograms(scope)),
    )
    by_measure: dict[str, dict[Version, Counts]] = defaultdict(dict)
    for (measure, version), counts in binned.items():
        by_measure[measure][version] = counts
    return _Profile(
        sentiments,
        by_measure["confidence"],
        merged(by_measure["text_characters"].values()),
        merged(by_measure["token_count"].values()),
    )


def _report(before: _Profile, current: _Profile) -> DriftReport:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.drift import Profile, drift_report

    def profile(of: _Profile) -> Profile:
        confidence = merged(of.confidence.values())
        return Profile(of.sentiment, confidence, of.text_characters, of.token_count)

    return drift_report(profile(before), profile(current))


def _estimates(
    labels: LabelsByVersion, confidence: Mapping[Version, Counts]
) -> dict[Version, EstimatedAccuracy]:
    from stats.estimated_accuracy import ConfidenceBin, estimate_accuracy

    estimates: dict[Version, EstimatedAccuracy] = {}
    for version, bins in labels.items():
        # Every confidence counts as the middle of its bin, on both sides: the predictions of a bin
        # are taken to be right as often as its labelled ones were.
        estimate = estimate_accuracy(
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
        if estimate is not None:
            estimates[version] = estimate
    return estimates
