"""Wire models of the replies under /analytics, but for the A/B tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from analytics.drift import TrafficDrift
from analytics.scope import Scope
from analytics.time_range import TimeRange
from analytics.timeseries import BucketName
from core.types import Endpoint, Sentiment, Version


class Window(BaseModel):
    since: datetime
    until: datetime
    version: Version | None = Field(description="null for both")

    @classmethod
    def of(cls, scope: Scope, **fields: Any) -> Self:
        """A reply about `scope`; fields may be objects with the attributes of their models."""
        span = scope.span
        window = {"since": span.since, "until": span.until, "version": scope.version}
        return cls.model_validate(window | fields, from_attributes=True)


class Summary(Window):
    total_predictions: int
    by_version: dict[Version, int]
    failures: int = Field(description="texts that a version could not answer")
    average_confidence: float | None = Field(description="null without predictions")
    average_latency_ms: float | None
    cache_hit_rate: float | None = Field(description="percent of the predictions")


class SentimentShare(BaseModel):
    count: int
    percent: float


class SentimentDistribution(Window):
    total_predictions: int
    distribution: dict[Sentiment, SentimentShare]

    @classmethod
    def of_counts(cls, scope: Scope, counts: Mapping[Sentiment, int]) -> Self:
        total = sum(counts.values())
        shares = {
            sentiment: {"count": count, "percent": 100 * count / total if total else 0.0}
            for sentiment, count in counts.items()
        }
        return cls.of(scope, total_predictions=total, distribution=shares)


class LoggedPrediction(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    id: UUID
    created_at: datetime
    endpoint: Endpoint
    sentiment: Sentiment
    confidence: float
    latency_ms: float
    cache_hit: bool
    model_version: Version
    model_revision: str
    truncated: bool
    token_count: int


class RecentPredictions(Window):
    predictions: list[LoggedPrediction] = Field(description="newest first; texts are never shown")
    next_before: UUID | None = Field(description="`before` of the next page; null on the last one")


class Point(BaseModel):
    """One bucket of one version."""

    time: datetime = Field(description="start of the bucket; the first may begin before `since`")
    version: Version
    predictions: int
    failures: int = Field(description="texts that this version could not answer")
    per_second: float = Field(description="predictions over the part of the bucket in the range")
    sentiments: dict[Sentiment, int]
    average_confidence: float | None = Field(description="null without predictions")
    cache_hit_rate: float | None = Field(description="percent")
    p50_ms: float | None = Field(description="latency, within 1 % of the exact percentile")
    p95_ms: float | None
    p99_ms: float | None


class Timeseries(Window):
    bucket: BucketName
    points: list[Point] = Field(description="by time, then version; buckets without any are absent")


class LatencyPercentiles(BaseModel):
    version: Version
    cache_hit: bool
    predictions: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Latency(Window):
    exact: bool
    percentiles: list[LatencyPercentiles] = Field(
        description="of the time inside the service; within 1 % unless `exact`"
    )


class ConfidenceBin(BaseModel):
    """Predictions with a confidence in [lower, upper); in the last bin, up to 1."""

    lower: float
    upper: float
    predictions: int


class HistogramRow(ConfidenceBin):
    version: Version


class ReliabilityPoint(BaseModel):
    """Labelled predictions of similar confidence; if calibrated, accuracy equals confidence."""

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
    error_noise: float = Field(
        description="the error that a perfectly calibrated model would have by chance"
    )
    curve: list[ReliabilityPoint]


class VersionConfidence(BaseModel):
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

    def histogram_rows(self) -> list[HistogramRow]:
        """The histograms of all versions as one table."""
        return [
            HistogramRow(version=confidence.version, **row.model_dump())
            for confidence in self.versions
            for row in confidence.histogram
        ]


class FeatureDrift(BaseModel):
    reference_count: int
    current_count: int
    psi: float | None = Field(description="Population Stability Index; null if a window is empty")
    psi_noise: float | None = Field(
        description="the PSI that 1 % of comparisons of this size exceed without any drift"
    )
    js_divergence: float | None = Field(description="Jensen-Shannon divergence, 0 to 1 bits")
    verdict: Literal["too_few", "stable", "moderate", "significant"] = Field(
        description="by PSI: below 0.1 stable, from 0.2 significant"
    )


class EstimatedAccuracy(BaseModel):
    """The accuracy that labels would show, estimated from calibrated confidence (CBPE).

    It holds while a confidence is right as often as in the reference (docs/statistics.md).
    """

    count: int
    labelled_count: int = Field(description="of the reference")
    accuracy: float
    low: float = Field(description="95 % interval")
    high: float
    supported: float = Field(
        description="share of predictions in confidence bins that the reference has labels for"
    )


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

    @classmethod
    def of_report(cls, scope: Scope, reference: TimeRange, report: TrafficDrift) -> Self:
        since, until = reference.since, reference.until
        return cls.of(scope, reference_since=since, reference_until=until, **report._asdict())
