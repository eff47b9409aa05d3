"""How sure the versions are, and how far that can be believed."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from operator import itemgetter

import anyio.to_thread
from pydantic import BaseModel, Field

from analytics.feedback.labels import LabelsByVersion, labels_by_version
from analytics.reader import Reader
from analytics.sql_fragment import Scope, counts, histogram
from analytics.window import Window, window
from core.types import Version
from stats.histogram import CONFIDENCE


class ConfidenceBin(BaseModel):
    """Predictions with a confidence in [lower, upper); in the last bin, up to 1."""

    lower: float
    upper: float
    predictions: int


class ReliabilityPoint(BaseModel):
    """Labelled predictions of like confidence; calibrated, they are right as often as they say."""

    count: int
    mean_confidence: float
    accuracy: float
    accuracy_low: float = Field(description="95 % interval")
    accuracy_high: float


class Calibration(BaseModel):
    count: int = Field(description="predictions with a true label")
    accuracy: float
    mean_confidence: float
    error: float = Field(description="expected calibration error, over ten bins")
    error_noise: float = Field(description="what it would be if confidence were exactly right")
    curve: list[ReliabilityPoint]


class VersionConfidence(BaseModel):
    version: Version
    predictions: int
    mean: float
    mean_entropy_bits: float = Field(description="0 is certain; undecided is 1, of 3 classes 1.58")
    histogram: list[ConfidenceBin] = Field(description="ascending; empty bins are absent")
    calibration: Calibration | None = Field(description="null without feedback")


class Confidence(Window):
    versions: list[VersionConfidence]


class HistogramRow(ConfidenceBin):
    version: Version


def histogram_rows(told: Confidence) -> list[HistogramRow]:
    """The histograms of all versions as one table."""
    return [
        HistogramRow(version=of.version, **each.model_dump())
        for of in told.versions
        for each in of.histogram
    ]


async def confidence(reader: Reader, scope: Scope) -> Confidence:
    binned = reader.histograms(histogram(scope, "confidence"))
    summed = reader.select(
        "version, sum(confidence_sum) AS confidence, sum(entropy_sum) AS entropy, "
        "sum(negative + neutral + positive)::bigint AS predictions",
        counts(scope),
        "GROUP BY version",
    )
    bins, sums, labels = await asyncio.gather(binned, summed, labels_by_version(reader, scope))
    calibrations = await anyio.to_thread.run_sync(_calibrations, labels)
    return Confidence(
        **window(scope),
        versions=[
            VersionConfidence(
                version=row["version"],
                predictions=row["predictions"],
                mean=row["confidence"] / row["predictions"],
                mean_entropy_bits=row["entropy"] / row["predictions"],
                histogram=[
                    ConfidenceBin(
                        lower=number / CONFIDENCE.count,
                        upper=(number + 1) / CONFIDENCE.count,
                        predictions=count,
                    )
                    for number, count in sorted(bins[row["version"],].items())
                ],
                calibration=calibrations.get(row["version"]),
            )
            for row in sorted(sums, key=itemgetter("version"))
        ],
    )


def _calibrations(labelled: LabelsByVersion) -> dict[Version, Calibration]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.calibration import calibration

    told = {version: calibration(bins) for version, bins in labelled.items()}
    return {
        version: Calibration.model_validate(asdict(one)) for version, one in told.items() if one
    }
