"""v1 and v2 over the subjects that /predict/ab assigned to one of them; each subject once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread
from sqlalchemy import bindparam, select

from analytics.ab.common import models_of, newest
from analytics.buckets import MINUTE, floor
from analytics.latency import percentiles_ms
from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Query, Shape, per_shape
from analytics.subqueries import counts, histograms, rolled_up, sentiment_sums, whole_sum
from analytics.tables import assignment_rollups, experiments
from analytics.time_range import EARLIEST, TimeRange
from core.types import SENTIMENTS, VERSIONS, Sentiment, Version
from stats.outcomes import ArmOutcomes, TrafficSplit

if TYPE_CHECKING:
    from stats.randomised import RandomisedComparison
    from stats.verdict import Verdict


class Arm(NamedTuple):
    """One version's share of /predict/ab; `model` is a row with revision and engine."""

    model: AnyRow
    subjects: int
    outcomes: ArmOutcomes
    sentiments: dict[Sentiment, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RandomisedTest(NamedTuple):
    """The comparison of the arms of the newest experiment."""

    since: datetime
    until: datetime
    v2_percent: float
    arms: dict[Version, Arm]
    comparison: RandomisedComparison
    verdict: Verdict


async def randomised_test(
    reader: Reader, since: datetime | None, until: datetime
) -> RandomisedTest | None:
    """None if no subject was assigned before `until`."""
    latest = await newest(reader, assignment_rollups, until, assignment_rollups.c.experiment_id)
    if latest is None:
        return None
    chosen = select(experiments).where(experiments.c.id == latest.experiment_id)
    [experiment] = await reader.select(Query(chosen))
    models = await models_of(reader, experiment.v1_model_version_id, experiment.v2_model_version_id)
    beginning = floor(max(since or EARLIEST, experiment.first_seen), MINUTE)
    assigned, traffic = await asyncio.gather(
        _assigned(reader, TimeRange(since or EARLIEST, until), experiment.id),
        _traffic(reader, TimeRange(beginning, until), models),
    )
    arms = {
        version: Arm(models[version], *assigned[version], *traffic[version]) for version in VERSIONS
    }
    comparison, verdict = await anyio.to_thread.run_sync(_compare, arms, experiment.v2_percent)
    return RandomisedTest(
        since=since or beginning,
        until=until,
        v2_percent=experiment.v2_percent,
        arms=arms,
        comparison=comparison,
        verdict=verdict,
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
    arms: Mapping[Version, Arm], v2_percent: float
) -> tuple[RandomisedComparison, Verdict]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.randomised import compare_arms
    from stats.verdict import randomised_verdict

    v1, v2 = arms["v1"], arms["v2"]
    split = TrafficSplit(v1.subjects, v2.subjects, v2_percent / 100)
    return (
        compare_arms(v1.outcomes, v2.outcomes, split),
        randomised_verdict(v1.outcomes, v2.outcomes, split),
    )


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
) -> dict[Version, tuple[Any, ...]]:
    """Sentiments, p50, p95 and p99 in ms of each version's answers to /predict/ab."""
    scope = Scope(span, randomised=True)
    rows, latencies = await asyncio.gather(
        reader.select(_sentiments(scope)), reader.histograms(_latencies(scope))
    )
    sentiments = {(version, revision): numbers for version, revision, *numbers in rows}
    found: dict[Version, tuple[Any, ...]] = {}
    for version, model in models.items():
        key = version, model.revision
        of_arm = dict(zip(SENTIMENTS, sentiments.get(key, [0] * len(SENTIMENTS)), strict=True))
        found[version] = (of_arm, *percentiles_ms(latencies.get(key, {})).values())
    return found
