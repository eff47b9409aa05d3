"""How the difference in accuracy and its interval developed, label by label."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from itertools import groupby
from operator import add, attrgetter
from typing import Any, NamedTuple, TypeVar

import anyio.to_thread
from sqlalchemy import ColumnElement, Table, func, select

from analytics.ab.common import IS_PAIR, PAIR, newest
from analytics.ab.paired import label_sums, paired_outcomes
from analytics.reader import AnyRow, Reader
from analytics.shape import Query
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
    table, parameters = comparison_rollups, {"v1": pair.v1, "v2": pair.v2}
    size = await _bucket_seconds(reader, table, IS_PAIR, parameters)
    key = table.c.bucket, table.c.v1_sentiment.label("v1"), table.c.v2_sentiment.label("v2")
    statement = (
        select(*key, *label_sums(table))
        .where(table.c.bucket_seconds == size, *IS_PAIR)
        .group_by(*key)
        .order_by(table.c.bucket)
    )
    return await reader.select(Query(statement, parameters))


async def _randomised(reader: Reader, until: datetime) -> Sequence[AnyRow]:
    table = assignment_rollups
    latest = await newest(reader, table, until, table.c.experiment_id)
    if latest is None:
        return []
    of_experiment = table.c.experiment_id == latest.experiment_id
    size = await _bucket_seconds(reader, table, (of_experiment,), {})
    key = table.c.bucket, table.c.version
    sums = (whole_sum(table.c[name]).label(name) for name in ("labelled", "correct"))
    statement = (
        select(*key, *sums)
        .where(table.c.bucket_seconds == size, of_experiment)
        .group_by(*key)
        .order_by(table.c.bucket)
    )
    return await reader.select(Query(statement))


async def _bucket_seconds(
    reader: Reader,
    table: Table,
    conditions: Sequence[ColumnElement[bool]],
    parameters: Mapping[str, Any],
) -> int:
    """The smallest size of buckets that gives not too many for the rows in `table`."""
    _, hour, day = sorted(BUCKET_SECONDS)
    ends = func.min(table.c.bucket).label("first"), func.max(table.c.bucket).label("last")
    hours = select(*ends).where(table.c.bucket_seconds == hour, *conditions)
    [row] = await reader.select(Query(hours, parameters))
    if row.first is None:
        return day
    length = (row.last - row.first).total_seconds() + hour
    return next((size for size in sorted(BUCKET_SECONDS) if length / size <= MAX_BUCKETS), day)


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
