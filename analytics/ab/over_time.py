"""How the difference in accuracy and its interval developed, label by label."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from itertools import groupby
from operator import add, attrgetter
from typing import NamedTuple, TypeVar

import anyio.to_thread
from sqlalchemy import ColumnElement, FromClause, Table, func, select

from analytics.ab.common import PAIR, is_pair, newest
from analytics.ab.paired import label_sums, paired_outcomes
from analytics.reader import AnyRow, Reader
from analytics.subqueries import whole_sum
from analytics.tables import BUCKET_SECONDS, assignment_rollups, comparison_rollups
from core.types import VERSIONS
from stats.outcomes import ArmOutcomes, PairedOutcomes

# Computing an interval takes a millisecond or two.
MAX_POINTS = 60
# The smallest buckets that give no more rows than this to add up.
MAX_BUCKETS = 240
ALPHA = 0.05

_Point = TypeVar("_Point")


class AbPoint(NamedTuple):
    """v2 minus v1 in accuracy, over all texts or subjects up to the end of a bucket.

    `time` is the bucket's start, `low` and `high` the 95 % interval that holds at every look.
    """

    time: datetime
    labelled: int
    difference: float
    low: float
    high: float


class AbOverTime(NamedTuple):
    """By when the text was first compared, or the subject first seen."""

    paired: list[AbPoint]
    randomised: list[AbPoint]


async def ab_over_time(reader: Reader, until: datetime) -> AbOverTime:
    paired, randomised = await asyncio.gather(_paired(reader, until), _randomised(reader, until))
    return AbOverTime(
        await anyio.to_thread.run_sync(_paired_points, paired),
        await anyio.to_thread.run_sync(_randomised_points, randomised),
    )


async def _paired(reader: Reader, until: datetime) -> Sequence[AnyRow]:
    pair = await newest(reader, comparison_rollups, until, *PAIR)
    if pair is None:
        return []
    facts = await _bucketed(reader, comparison_rollups, *is_pair(pair))
    key = facts.c.bucket, facts.c.v1_sentiment.label("v1"), facts.c.v2_sentiment.label("v2")
    return await reader.select(
        select(*key, *label_sums(facts)).group_by(*key).order_by(facts.c.bucket)
    )


async def _randomised(reader: Reader, until: datetime) -> Sequence[AnyRow]:
    experiment_id = assignment_rollups.c.experiment_id
    latest = await newest(reader, assignment_rollups, until, experiment_id)
    if latest is None:
        return []
    facts = await _bucketed(reader, assignment_rollups, experiment_id == latest.experiment_id)
    return await reader.select(
        select(
            facts.c.bucket,
            facts.c.version,
            *(whole_sum(facts.c[name]).label(name) for name in ("labelled", "correct")),
        )
        .group_by(facts.c.bucket, facts.c.version)
        .order_by(facts.c.bucket)
    )


async def _bucketed(reader: Reader, table: Table, *conditions: ColumnElement[bool]) -> FromClause:
    """The rollups of `table`, in the smallest buckets that are not too many."""

    def of_size(seconds: int) -> FromClause:
        return select(table).where(table.c.bucket_seconds == seconds, *conditions).subquery()

    _, hour, day = sorted(BUCKET_SECONDS)
    hours = of_size(hour).c.bucket
    [ends] = await reader.select(
        select(func.min(hours).label("first"), func.max(hours).label("last"))
    )
    if ends.first is None:
        return of_size(day)
    length = (ends.last - ends.first).total_seconds() + hour
    return of_size(
        next((size for size in sorted(BUCKET_SECONDS) if length / size <= MAX_BUCKETS), day)
    )


def _paired_points(rows: Sequence[AnyRow]) -> list[AbPoint]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.confidence_sequence import paired_confidence_sequence

    total = PairedOutcomes(0, 0, 0, 0)
    cumulated = []
    for time, of_bucket in groupby(rows, attrgetter("bucket")):
        new = paired_outcomes(of_bucket)
        total = PairedOutcomes(*map(add, astuple(total), astuple(new)))
        if new.labelled:
            cumulated.append((time, total))
    points = []
    for time, outcomes in _thinned(cumulated):
        difference = (outcomes.only_v2_right - outcomes.only_v1_right) / outcomes.labelled
        interval = paired_confidence_sequence(outcomes, ALPHA)
        points.append(AbPoint(time, outcomes.labelled, difference, interval.low, interval.high))
    return points


def _randomised_points(rows: Sequence[AnyRow]) -> list[AbPoint]:
    from stats.confidence_sequence import arms_confidence_sequence

    labelled, right = Counter[str](), Counter[str]()
    cumulated = []
    for time, of_bucket in groupby(rows, attrgetter("bucket")):
        before = labelled.total()
        for row in of_bucket:
            labelled[row.version] += row.labelled
            right[row.version] += row.correct
        if labelled.total() > before and all(labelled[version] for version in VERSIONS):
            v1, v2 = (ArmOutcomes(labelled[version], right[version]) for version in VERSIONS)
            cumulated.append((time, v1, v2))
    points = []
    for time, v1, v2 in _thinned(cumulated):
        difference = v2.right / v2.labelled - v1.right / v1.labelled
        interval = arms_confidence_sequence(v1, v2, ALPHA)
        count = v1.labelled + v2.labelled
        points.append(AbPoint(time, count, difference, interval.low, interval.high))
    return points


def _thinned(points: Sequence[_Point]) -> Sequence[_Point]:
    """At most MAX_POINTS of them, evenly spread; the last is always among them."""
    step = -(-len(points) // MAX_POINTS) or 1
    return points[::-1][::step][::-1]
