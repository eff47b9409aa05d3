"""Wire models of the replies of /analytics/ab."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from analytics.ab.paired import PairedTest
from analytics.ab.randomised import RandomisedTest
from analytics.ab.report import AbTest as Comparisons
from core.types import Sentiment, Version


class Interval(BaseModel):
    low: float
    high: float


class Model(BaseModel):
    revision: str
    engine: str


class LabelsNeeded(BaseModel):
    v1: int
    v2: int


class Verdict(BaseModel):
    """Holds however often it is read, as long as `since` stays the same (docs/statistics.md)."""

    finding: Literal["v2_better", "v1_better", "no_difference_yet", "sample_ratio_mismatch"]
    sentence: str
    more_labels: LabelsNeeded | None = Field(
        description="that would settle the test if the observed accuracies were the true ones; "
        "null if no number would, or if a version has no labels"
    )


class SentimentPair(BaseModel):
    v1: Sentiment
    v2: Sentiment
    texts: int


class PairedComparison(BaseModel):
    """/predict/ab-compare, each text once. Differences are v2 minus v1, intervals of 95 %."""

    since: datetime
    until: datetime
    models: dict[Version, Model] = Field(description="the pair that was compared last")
    pairs: int
    table: list[SentimentPair] = Field(
        description="the sentiments by v1 and v2; empty cells are absent"
    )
    agreement: float | None
    kappa: float | None = Field(description="agreement beyond chance (Cohen)")
    confidence_difference: float | None
    confidence_difference_interval: Interval | None
    labelled: int
    both_right: int
    only_v1_right: int
    only_v2_right: int
    none_right: int
    v1_accuracy: float | None
    v2_accuracy: float | None
    accuracy_difference: float | None
    accuracy_difference_interval: Interval | None = Field(
        description="valid at one planned look (Tango)"
    )
    mcnemar_p: float | None = Field(description="exact; valid at one planned look")
    always_valid_interval: Interval | None
    always_valid_p: float | None
    verdict: Verdict

    @classmethod
    def of(cls, test: PairedTest) -> Self:
        fields = test._asdict() | asdict(test.outcomes) | asdict(test.comparison)
        return cls.model_validate(fields, from_attributes=True)


class Arm(BaseModel):
    """One version's share of /predict/ab."""

    model: Model
    subjects: int
    labelled: int = Field(
        description="subjects with feedback; the prediction that was labelled first counts"
    )
    right: int
    accuracy: float | None
    accuracy_interval: Interval | None = Field(description="Wilson, 95 %")
    predictions: int
    sentiments: dict[Sentiment, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RandomisedComparison(BaseModel):
    """/predict/ab, each subject once. Differences are v2 minus v1, intervals of 95 %."""

    since: datetime
    until: datetime
    v2_percent: float = Field(description="the configured split")
    arms: dict[Version, Arm]
    accuracy_difference: float | None
    accuracy_difference_interval: Interval | None = Field(
        description="valid at one planned look (Newcombe)"
    )
    always_valid_interval: Interval | None
    always_valid_p: float | None
    split_p: float | None = Field(description="chi-square of the split; valid at one planned look")
    split_always_valid_p: float
    verdict: Verdict

    @classmethod
    def of(cls, test: RandomisedTest) -> Self:
        comparison = asdict(test.comparison)
        arms = {
            version: arm._asdict()
            | asdict(arm.outcomes)
            | {
                "predictions": sum(arm.sentiments.values()),
                "accuracy": comparison[f"{version}_accuracy"],
                "accuracy_interval": comparison[f"{version}_accuracy_interval"],
            }
            for version, arm in test.arms.items()
        }
        fields = test._asdict() | comparison | {"arms": arms}
        return cls.model_validate(fields, from_attributes=True)


class AbTest(BaseModel):
    paired: PairedComparison | None = Field(description="null if nothing was compared")
    randomised: RandomisedComparison | None = Field(
        description="null if no subject was assigned a version"
    )

    @classmethod
    def of(cls, test: Comparisons) -> Self:
        return cls(
            paired=test.paired and PairedComparison.of(test.paired),
            randomised=test.randomised and RandomisedComparison.of(test.randomised),
        )


class AbPoint(BaseModel):
    """All texts or subjects up to the end of a bucket."""

    time: datetime = Field(description="start of the bucket")
    labelled: int
    difference: float = Field(description="accuracy of v2 minus that of v1")
    low: float = Field(description="of the interval that holds at every look, 95 %")
    high: float


class AbOverTime(BaseModel):
    """Ordered by the time when a text was first compared, or a subject first seen."""

    paired: list[AbPoint] = Field(description="of the newest pair of models; empty without labels")
    randomised: list[AbPoint] = Field(description="of the newest test of the traffic split")
