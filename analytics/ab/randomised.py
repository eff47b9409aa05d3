"""v1 and v2 over the subjects that /predict/ab assigned to one of them; each subject once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import Field
from sqlalchemy import bindparam, select

from analytics.ab.common import Model, experiment_of, models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.latency import percentiles_ms
from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import counts, histograms, rolled_up, sentiment_sums, whole_sum
from analytics.tables import assignment_rollups
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, VERSIONS, Sentiment, Version
from stats.outcomes import ArmOutcomes, Interval, TrafficSplit
from stats.results import Result, Verdict


class Arm(Result):
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


class RandomisedComparison(Result):
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


async def randomised_comparison(
    reader: Reader, since: datetime | None, until: datetime
) -> RandomisedComparison | None:
    """Compare the arms of the newest experiment; None if no subject was assigned before `until`."""
    latest = await newest(reader, assignment_rollups, until, assignment_rollups.c.experiment_id)
    if latest is None:
        return None
    experiment = await experiment_of(reader, latest.experiment_id)
    models = await models_of(reader, experiment.v1_model_version_id, experiment.v2_model_version_id)
    beginning = floor(max(since or EARLIEST, experiment.first_seen), MINUTE)
    assigned, traffic = await asyncio.gather(
        _assigned(reader, TimeRange(since or EARLIEST, until), experiment.id),
        _traffic(reader, TimeRange(beginning, until), models),
    )
    compared = await anyio.to_thread.run_sync(_compare, assigned, traffic, experiment)
    return RandomisedComparison(
        since=since or beginning, until=until, v2_percent=experiment.v2_percent, **compared
    )


@per_shape
def _subjects(shape: Shape) -> AnySelect:
    of_experiment = assignment_rollups.c.experiment_id == bindparam("experiment_id")
    facts = rolled_up(shape, assignment_rollups, of_experiment)
    sums = (whole_sum(facts.c[name]).label(name) for name in ("subjects", "labelled", "correct"))
    return select(facts.c.version, *sums).group_by(facts.c.version)


async def _assigned(
    reader: Reader, span: TimeRange, experiment_id: int
) -> dict[Version, tuple[int, ArmOutcomes]]:
    """The subjects and the outcomes of each version."""
    rows = await reader.select(_subjects(Scope(span), experiment_id=experiment_id))
    found = {row.version: (row.subjects, ArmOutcomes(row.labelled, row.correct)) for row in rows}
    return {version: found.get(version, (0, ArmOutcomes(0, 0))) for version in VERSIONS}


def _compare(
    assigned: Mapping[Version, tuple[int, ArmOutcomes]],
    traffic: Mapping[Version, dict[str, Any]],
    experiment: AnyRow,
) -> dict[str, Any]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.randomised import compare_arms
    from stats.verdict import randomised_verdict
    from stats.wilson import wilson_interval

    (v1_subjects, v1), (v2_subjects, v2) = assigned["v1"], assigned["v2"]
    v2_share, label_share = experiment.v2_percent / 100, experiment.label_share
    split = TrafficSplit(v1_subjects, v2_subjects, v2_share, label_share)
    arms = {
        version: Arm(
            subjects=subjects,
            labelled=outcomes.labelled,
            right=outcomes.right,
            accuracy=outcomes.accuracy,
            accuracy_interval=wilson_interval(outcomes.right, outcomes.labelled),
            **traffic[version],
        )
        for version, (subjects, outcomes) in assigned.items()
    }
    verdict = randomised_verdict(v1, v2, split)
    return {"arms": arms, **compare_arms(v1, v2, split), "verdict": verdict}


@per_shape
def _sentiments(shape: Shape) -> AnySelect:
    facts = counts(shape)
    key = facts.c.version, facts.c.revision
    return select(*key, *sentiment_sums(facts)).group_by(*key)


@per_shape
def _latencies(shape: Shape) -> AnySelect:
    return histograms(shape, "latency_ms", by=("version", "revision"))


async def _traffic(
    reader: Reader, span: TimeRange, models: Mapping[Version, AnyRow]
) -> dict[Version, dict[str, Any]]:
    """The fields of each `Arm` about its answers, whether their subjects are labelled or not."""
    scope = Scope(span, randomised=True)
    rows, latencies = await asyncio.gather(
        reader.select(_sentiments(scope)), reader.histograms(_latencies(scope))
    )
    sentiments = {(version, revision): numbers for version, revision, *numbers in rows}
    traffic: dict[Version, dict[str, Any]] = {}
    for version, model in models.items():
        key = version, model.revision
        numbers = sentiments.get(key, [0] * len(SENTIMENTS))
        traffic[version] = {
            "model": model,
            "predictions": sum(numbers),
            "sentiments": dict(zip(SENTIMENTS, numbers, strict=True)),
            **percentiles_ms(latencies.get(key, {})),
        }
    return traffic
