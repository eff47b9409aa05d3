"""How sure the versions are: the distribution of their confidence."""

from __future__ import annotations

from collections import defaultdict

from pydantic import BaseModel, Field

from analytics.facts import Scope, counts, histogram
from analytics.reader import Reader
from analytics.statistics.histogram import CONFIDENCE
from analytics.window import Window, window
from values import Version


class ConfidenceBin(BaseModel):
    """Predictions with a confidence in [lower, upper); in the last bin, up to 1."""

    lower: float
    upper: float
    predictions: int


class VersionConfidence(BaseModel):
    version: Version
    predictions: int
    mean: float
    histogram: list[ConfidenceBin] = Field(description="ascending; empty bins are absent")


class Confidence(Window):
    versions: list[VersionConfidence]


async def confidence(reader: Reader, scope: Scope) -> Confidence:
    rows = await reader.select(
        "version, bin, sum(predictions)::bigint AS predictions",
        histogram(scope, "confidence"),
        "GROUP BY version, bin ORDER BY version, bin",
    )
    bins: dict[Version, list[ConfidenceBin]] = defaultdict(list)
    for row in rows:
        lower, upper = row["bin"] / CONFIDENCE.count, (row["bin"] + 1) / CONFIDENCE.count
        bins[row["version"]].append(
            ConfidenceBin(lower=lower, upper=upper, predictions=row["predictions"])
        )
    sums = await reader.select(
        "version, sum(confidence_sum) AS confidence, "
        "sum(negative + neutral + positive)::bigint AS predictions",
        counts(scope),
        "GROUP BY version ORDER BY version",
    )
    return Confidence(
        **window(scope),
        versions=[
            VersionConfidence(
                version=row["version"],
                predictions=row["predictions"],
                mean=row["confidence"] / row["predictions"],
                histogram=bins[row["version"]],
            )
            for row in sums
        ],
    )
