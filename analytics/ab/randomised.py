"""v1 and v2 over the subjects that /predict/ab dealt to one of them; each subject once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from analytics.ab.common import Interval, Model, Verdict, model, models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.latency import percentiles_ms
from analytics.reader import Reader
from analytics.sql_fragment import Scope, SqlFragment, counts, histogram, rolled_up
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, VERSIONS, Sentiment, Version
from stats.outcomes import ArmOutcomes, TrafficSplit


class Arm(BaseModel):
    """One version's share of /predict/ab."""

    model: Model
    subjects: int
    labelled: int = Field(
        description="subjects with feedback; of each the prediction labelled first"
    )
    right: int
    accuracy: float | None
    accuracy_interval: Interval | None = Field(description="Wilson, 95 %")
    predictions: int
    sentiments: dict[Sentiment, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RoutedComparison(BaseModel):
    """Of /predict/ab, each subject once. Differences are v2 minus v1, intervals of 95 %."""

    since: datetime
    until: datetime
    v2_percent: float = Field(description="the configured split")
    arms: dict[Version, Arm]
    accuracy_difference: float | None
    accuracy_difference_interval: Interval | None = Field(
        description="of one planned look (Newcombe)"
    )
    always_valid_interval: Interval | None
    always_valid_p: float | None
    split_p: float | None = Field(description="chi-square of the split; of one planned look")
    split_always_valid_p: float
    verdict: Verdict


async def compare_arms_of(
    reader: Reader, since: datetime | None, until: datetime
) -> RoutedComparison | None:
    latest = await newest(reader, "assignment_rollups", "experiment_id", until)
    if latest is None:
        return None
    [experiment] = await reader.select(
        "v2_percent, first_seen, v1_model_version_id AS v1, v2_model_version_id AS v2",
        SqlFragment("(SELECT * FROM experiments WHERE id = :experiment_id)", dict(latest)),
    )
    models = await models_of(reader, v1=experiment["v1"], v2=experiment["v2"])
    facts = rolled_up(
        "assignment_rollups", TimeRange(since or EARLIEST, until),
        "experiment_id = :experiment_id", dict(latest),
    )  # fmt: skip
    subjects, traffic = await asyncio.gather(
        reader.select(
            "version, sum(subjects)::bigint AS subjects, sum(labelled)::bigint AS labelled, "
            "sum(correct)::bigint AS correct",
            facts,
            "GROUP BY version",
        ),
        _traffic(
            reader,
            TimeRange(floor(max(since or EARLIEST, experiment["first_seen"]), MINUTE), until),
            {version: row["revision"] for version, row in models.items()},
        ),
    )
    dealt = {row["version"]: row for row in subjects}
    told = await anyio.to_thread.run_sync(_compare_arms, dealt, experiment["v2_percent"])
    arms = {
        version: Arm(
            model=model(models[version]),
            subjects=_count(dealt, version, "subjects"),
            labelled=_count(dealt, version, "labelled"),
            right=_count(dealt, version, "correct"),
            accuracy=told[f"{version}_accuracy"],
            accuracy_interval=told[f"{version}_accuracy_interval"],
            **traffic[version],
        )
        for version in VERSIONS
    }
    return RoutedComparison(
        since=since or floor(experiment["first_seen"], MINUTE),
        until=until,
        v2_percent=experiment["v2_percent"],
        arms=arms,
        **{name: told[name] for name in told if name in RoutedComparison.model_fields},
    )


def _count(dealt: Mapping[Version, RowMapping], version: Version, column: str) -> int:
    return int(dealt[version][column]) if version in dealt else 0


def _compare_arms(dealt: Mapping[Version, RowMapping], v2_percent: float) -> dict[str, Any]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.randomised import compare_arms
    from stats.verdict import routed_verdict

    v1, v2 = (
        ArmOutcomes(_count(dealt, version, "labelled"), _count(dealt, version, "correct"))
        for version in VERSIONS
    )
    split = TrafficSplit(
        _count(dealt, "v1", "subjects"), _count(dealt, "v2", "subjects"), v2_percent / 100
    )
    verdict = asdict(routed_verdict(v1, v2, split))
    return {**asdict(compare_arms(v1, v2, split)), "verdict": verdict}


async def _traffic(
    reader: Reader, span: TimeRange, revisions: dict[Version, str]
) -> dict[Version, dict[str, Any]]:
    """Sentiments and latency of each version's /predict/ab, as fields of `Arm`."""
    scope = Scope(span, routed=True)
    said, took = await asyncio.gather(
        reader.select(
            "version, revision, "
            + ", ".join(f"sum({name})::bigint AS {name}" for name in SENTIMENTS),
            counts(scope),
            "GROUP BY version, revision",
        ),
        reader.histograms(histogram(scope, "latency_ms", by=("version", "revision"))),
    )
    traffic: dict[Version, dict[str, Any]] = {}
    for version, revision in revisions.items():
        mine = [row for row in said if (row["version"], row["revision"]) == (version, revision)]
        sentiments = {name: sum(row[name] for row in mine) for name in SENTIMENTS}
        traffic[version] = {
            "predictions": sum(sentiments.values()),
            "sentiments": sentiments,
            **percentiles_ms(took.get((version, revision), {})),
        }
    return traffic
