"""How confident the versions are, and how far their confidence can be believed."""

from __future__ import annotations

import asyncio
from operator import attrgetter

import anyio.to_thread
from pydantic import Field
from sqlalchemy import func, select

from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.reader import Reader
from analytics.scope import Scope, Window
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import all_sentiments, counts, histograms, whole_sum
from core.types import Version
from stats.histogram import CONFIDENCE
from stats.results import Calibration, Result


class ConfidenceBin(Result):
    """Predictions with a confidence in [lower, upper); in the last bin, up to 1."""

    lower: float
    upper: float
    predictions: int


class VersionConfidence(Result):
    version: Version
    predictions: int
    mean: float
    mean_entropy_bits: float = Field(
        description="0 if certain; if undecided, 1 of 2 classes and 1.58 of 3"
    )
    histogram: list[ConfidenceBin] = Field(description="ascending; empty bins are absent")
    calibration: Calibration | None = Field(description="null without feedback")


class Confidence(Window):
    versions: list[VersionConfidence]


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    return histograms(shape, "confidence")


@per_shape
def _sums(shape: Shape) -> AnySelect:
    facts = counts(shape)
    return select(
        facts.c.version,
        func.sum(facts.c.confidence_sum).label("confidence"),
        func.sum(facts.c.entropy_sum).label("entropy"),
        whole_sum(all_sentiments(facts)).label("predictions"),
    ).group_by(facts.c.version)


async def confidence(reader: Reader, scope: Scope) -> Confidence:
    bins, rows, labels = await asyncio.gather(
        reader.histograms(_histograms(scope)),
        reader.select(_sums(scope)),
        labels_by_version(reader, scope),
    )
    calibrations = await anyio.to_thread.run_sync(_calibrations, labels)
    versions = [
        VersionConfidence(
            version=row.version,
            predictions=row.predictions,
            mean=row.confidence / row.predictions,
            mean_entropy_bits=row.entropy / row.predictions,
            histogram=[
                ConfidenceBin(
                    lower=number / CONFIDENCE.count,
                    upper=(number + 1) / CONFIDENCE.count,
                    predictions=count,
                )
                for number, count in sorted(bins[row.version,].items())
            ],
            calibration=calibrations.get(row.version),
        )
        for row in sorted(rows, key=attrgetter("version"))
    ]
    return Confidence(**scope.window, versions=versions)


def _calibrations(labels: LabelsByVersion) -> dict[Version, Calibration | None]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.calibration import calibration

    return {version: calibration(bins) for version, bins in labels.items()}
