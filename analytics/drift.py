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

from analytics.content import sketches_of
from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.moved_texts import MovedTexts, moved_texts
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
from stats.results import ContentDrift, EstimatedAccuracy, FeatureDrift

_MEASURES: tuple[MeasureName, ...] = ("confidence", "text_characters", "token_count")


_Distributions = tuple[Profile, dict[Version, Counts]]


class DriftOfTraffic(Window):
    reference_since: datetime
    reference_until: datetime
    sentiment: FeatureDrift
    confidence: FeatureDrift
    text_characters: FeatureDrift
    token_count: FeatureDrift
    content: ContentDrift
    moved_texts: MovedTexts | None = Field(description="null unless the content has drifted")
    estimated_accuracy: dict[Version, EstimatedAccuracy] = Field(
        description="for versions with feedback in the reference; needs no labels of the window"
    )


async def drift(
    reader: Reader,
    scope: Scope,
    reference: TimeRange,
    *,
    texts: int = 0,
    shows_texts: bool = True,
) -> DriftOfTraffic:
    """Compare sentiments, confidence, lengths and content in `scope` with those in `reference`.

    If the content has drifted, `texts` of the texts that moved most are listed.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    before_scope = replace(scope, span=reference)
    middle = reference.since + (reference.until - reference.since) / 2
    halves = TimeRange(reference.since, middle), TimeRange(middle, reference.until)
    (((before, _), (current, confidence)), content), labels = await asyncio.gather(
        _read(reader, before_scope, scope),
        asyncio.gather(
            labels_by_version(reader, before_scope),
            *(labels_by_version(reader, replace(scope, span=half)) for half in halves),
        ),
    )
    features = await anyio.to_thread.run_sync(_compare, before, current, content)
    estimated = await anyio.to_thread.run_sync(_estimate, labels, confidence, features["sentiment"])
    moved = None
    if texts and features["content"].verdict in ("moderate", "significant"):
        moved = await moved_texts(reader, scope, content, texts, shows_texts=shows_texts)
    return DriftOfTraffic(
        **scope.window,
        reference_since=reference.since,
        reference_until=reference.until,
        moved_texts=moved,
        estimated_accuracy=estimated,
        **features,
    )


async def drift_of_features(reader: Reader, scope: Scope, reference: TimeRange) -> dict[str, Any]:
    """The drift of each feature by its name, and of `content`: `drift` without the rest.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    ((before, _), (current, _)), content = await _read(
        reader, replace(scope, span=reference), scope
    )
    return await anyio.to_thread.run_sync(_compare, before, current, content)


async def _read(
    reader: Reader, *scopes: Scope
) -> tuple[list[_Distributions], list[Sequence[bytes]]]:
    """The profile of each scope, and the sketches of its texts."""
    return await asyncio.gather(
        asyncio.gather(*(_profile(reader, one) for one in scopes)),
        asyncio.gather(*(sketches_of(reader, one) for one in scopes)),
    )


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    return histograms(shape, *_MEASURES, by=("measure", "version"))


async def _profile(reader: Reader, scope: Scope) -> _Distributions:
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
    before: Profile, current: Profile, content: Sequence[Sequence[bytes]]
) -> dict[str, Any]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.content_drift import Texts, content_drift
    from stats.drift import drift_report

    return {**drift_report(before, current), "content": content_drift(*map(Texts.of, content))}


def _estimate(
    labels: Sequence[LabelsByVersion],
    confidence: Mapping[Version, Counts],
    sentiment: FeatureDrift,
) -> dict[Version, EstimatedAccuracy]:
    """`labels` are those of the reference, of its first half and of its second."""
    from stats.estimated_accuracy import (  # imports SciPy
        ConfidenceBin,
        caveat_of,
        estimate_accuracy,
    )

    estimates = {}
    for version in labels[0]:
        reference, earlier, later = (_at_middles(part.get(version, {})) for part in labels)
        estimate = estimate_accuracy(
            reference,
            {
                number: ConfidenceBin(count, count * CONFIDENCE.value_of(number))
                for number, count in confidence.get(version, {}).items()
            },
        )
        if estimate is not None:
            caveat = caveat_of(estimate, earlier, later, sentiment)
            estimates[version] = estimate.model_copy(update={"caveat": caveat})
    return estimates


def _at_middles(bins: Mapping[int, LabelledBin]) -> dict[int, LabelledBin]:
    """The bins with every confidence counted as the middle of its bin, as those of the window.

    The predictions of a bin are taken to be right as often as its labelled ones were.
    """
    return {
        number: replace(part, confidence_sum=part.count * CONFIDENCE.value_of(number))
        for number, part in bins.items()
    }
