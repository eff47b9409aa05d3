"""Drift of the traffic: the predictions of a window against those of a reference window."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import Field

from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.reader import Reader
from analytics.rollups import MeasureName
from analytics.scope import Scope, Window
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import histograms
from analytics.summary import sentiment_counts
from analytics.time_range import TimeRange
from core.types import Version
from stats.histogram import CONFIDENCE, Counts, merged
from stats.outcomes import LabelledBin, Profile
from stats.results import EstimatedAccuracy, FeatureDrift

_MEASURES: tuple[MeasureName, ...] = ("confidence", "text_characters", "token_count")


class DriftOfTraffic(Window):
    reference_since: datetime
    reference_until: datetime
    sentiment: FeatureDrift
    confidence: FeatureDrift
    text_characters: FeatureDrift
    token_count: FeatureDrift
    estimated_accuracy: dict[Version, EstimatedAccuracy] = Field(
        description="for versions with feedback in the reference; needs no labels of the window"
    )


async def drift(reader: Reader, scope: Scope, reference: TimeRange) -> DriftOfTraffic:
    """Compare sentiments, confidence and lengths in `scope` with those in `reference`."""
    before_scope = replace(scope, span=reference)
    middle = reference.since + (reference.until - reference.since) / 2
    halves = TimeRange(reference.since, middle), TimeRange(middle, reference.until)
    (before, _), (current, confidence), *labels = await asyncio.gather(
        _profile(reader, before_scope),
        _profile(reader, scope),
        *(labels_by_version(reader, replace(scope, span=half)) for half in halves),
    )
    compared = await anyio.to_thread.run_sync(_compare, before, current, labels, confidence)
    return DriftOfTraffic(
        **scope.window, reference_since=reference.since, reference_until=reference.until, **compared
    )


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    return histograms(shape, *_MEASURES, by=("measure", "version"))


async def _profile(reader: Reader, scope: Scope) -> tuple[Profile, dict[Version, Counts]]:
    """The distributions, and that of the confidence by version."""
    sentiments, binned = await asyncio.gather(
        sentiment_counts(reader, scope), reader.histograms(_histograms(scope))
    )
    by_measure: dict[str, dict[Version, Counts]] = defaultdict(dict)
    for (measure, version), counts in binned.items():
        by_measure[measure][version] = counts
    added = (merged(by_measure[measure].values()) for measure in _MEASURES)
    return Profile(sentiments, *added), by_measure["confidence"]


def _compare(
    before: Profile,
    current: Profile,
    labels: Sequence[LabelsByVersion],
    confidence: Mapping[Version, Counts],
) -> dict[str, Any]:
    """The drift of each feature by its name, and `estimated_accuracy`.

    `labels` are those of both halves of the reference.
    """
    # In a thread and only now: importing SciPy takes half a second.
    from stats.drift import drift_report
    from stats.estimated_accuracy import ConfidenceBin, caveat_of, estimate_accuracy

    report = drift_report(before, current)
    # Every confidence counts as the middle of its bin, on both sides: the predictions of a bin are
    # taken to be right as often as its labelled ones were.
    middle = CONFIDENCE.value_of
    estimates = {}
    for version in labels[0].keys() | labels[1].keys():
        earlier, later = (
            {
                number: LabelledBin(part.count, part.count * middle(number), part.correct)
                for number, part in half.get(version, {}).items()
            }
            for half in labels
        )
        nothing = LabelledBin(0, 0.0, 0)
        estimate = estimate_accuracy(
            {
                number: earlier.get(number, nothing) + later.get(number, nothing)
                for number in earlier.keys() | later.keys()
            },
            {
                number: ConfidenceBin(count, count * middle(number))
                for number, count in confidence.get(version, {}).items()
            },
        )
        if estimate is not None:
            caveat = caveat_of(estimate, earlier, later, report["sentiment"])
            estimates[version] = estimate.model_copy(update={"caveat": caveat})
    return {**report, "estimated_accuracy": estimates}
