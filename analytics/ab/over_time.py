"""How the difference in accuracy and its interval developed, label by label."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from datetime import datetime, timedelta
from itertools import groupby
from operator import add, attrgetter
from typing import Any

import anyio.to_thread
from pydantic import Field
from sqlalchemy import ColumnElement, Table, func, select

from analytics.ab.common import PAIR, experiment_of, newest
from analytics.ab.paired import label_sums, paired_outcomes
from analytics.reader import AnyRow, Reader
from analytics.shape import Query
from analytics.subqueries import whole_sum
from analytics.tables import BUCKET_SECONDS, assignment_rollups, comparison_rollups
from core.types import VERSIONS
from stats.outcomes import ArmOutcomes, Interval, PairedOutcomes
from stats.results import Result

# Computing an interval takes a few milliseconds.
MAX_POINTS = 60
# The smallest buckets that give no more rows than this to add up.
MAX_BUCKETS = 240
ALPHA = 0.05

# A bucket's start and, up to its end: the labels, v2 minus v1 in accuracy, and the outcomes.
_Total = tuple[datetime, int, float, tuple[Any, ...]]


class AbPoint(Result):
    """All texts or subjects up to the end of a bucket."""

    time: datetime = Field(description="start of the bucket")
    labelled: int
    difference: float = Field(description="accuracy of v2 minus that of v1")
    low: float = Field(description="of the interval that holds at every look, 95 %")
    high: float


class AbOverTime(Result):
    """Ordered by the time when a text was first compared, or a subject first seen."""

    paired: list[AbPoint] = Field(description="of the newest pair of models; empty without labels")
    randomised: list[AbPoint] = Field(description="of the newest test of the traffic split")


async def ab_over_time(reader: Reader, until: datetime) -> AbOverTime:
    pairs, arms = comparison_rollups, assignment_rollups
    paired, randomised = await asyncio.gather(
        _history(
            reader, until, pairs,
            identity=PAIR,
            key=(pairs.c.v1_sentiment.label("v1"), pairs.c.v2_sentiment.label("v2")),
            sums=label_sums(pairs),
        ),
        _history(
            reader, until, arms,
            identity=(arms.c.experiment_id,),
            key=(arms.c.experiment_id, arms.c.version),
            sums=[whole_sum(arms.c[name]).label(name) for name in ("labelled", "correct")],
        ),
    )  # fmt: skip
    share = None
    if randomised:
        share = (await experiment_of(reader, randomised[0].experiment_id)).label_share
    return AbOverTime(
        paired=await anyio.to_thread.run_sync(_paired_points, paired),
        randomised=await anyio.to_thread.run_sync(_randomised_points, randomised, share),
    )


async def _history(
    reader: Reader,
    until: datetime,
    table: Table,
    *,
    identity: Sequence[ColumnElement[Any]],
    key: Sequence[ColumnElement[Any]],
    sums: Sequence[ColumnElement[Any]],
) -> Sequence[AnyRow]:
    """The `sums` of each bucket by `key`, for the newest test in `table` by its `identity`."""
    latest = await newest(reader, table, until, *identity)
    if latest is None:
        return []
    of_test = [column == value for column, value in zip(identity, latest, strict=True)]
    size = await _bucket_seconds(reader, table, of_test)
    bucket = table.c.bucket
    statement = (
        select(bucket, *key, *sums)
        .where(table.c.bucket_seconds == size, *of_test)
        .group_by(bucket, *key)
        .order_by(bucket)
    )
    return await reader.select(Query(statement))


async def _bucket_seconds(
    reader: Reader, table: Table, conditions: Sequence[ColumnElement[bool]]
) -> int:
    """The smallest size of buckets that gives not too many for the rows in `table`.

    Retention leaves the days of a test, and drops its hours and minutes.
    """
    _, hour, day = sorted(BUCKET_SECONDS)
    ends = (
        func.min(table.c.bucket).filter(table.c.bucket_seconds == day).label("first_day"),
        func.min(table.c.bucket).filter(table.c.bucket_seconds == hour).label("first"),
        func.max(table.c.bucket).filter(table.c.bucket_seconds == hour).label("last"),
    )
    sizes = select(*ends).where(table.c.bucket_seconds.in_((hour, day)), *conditions)
    [row] = await reader.select(Query(sizes))
    if row.first is None or row.first - row.first_day >= timedelta(seconds=day):
        return day
    length = (row.last - row.first).total_seconds() + hour
    return next((size for size in sorted(BUCKET_SECONDS) if length / size <= MAX_BUCKETS), day)


def _paired_points(rows: Sequence[AnyRow]) -> list[AbPoint]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.confidence_sequence import paired_confidence_sequence

    total = PairedOutcomes(0, 0, 0, 0)
    totals: list[_Total] = []
    for time, of_bucket in groupby(rows, attrgetter("bucket")):
        new = paired_outcomes(of_bucket)
        total = PairedOutcomes(*map(add, astuple(total), astuple(new)))
        if new.labelled:
            difference = (total.only_v2_right - total.only_v1_right) / total.labelled
            totals.append((time, total.labelled, difference, (total,)))
    return _points(totals, paired_confidence_sequence)


def _randomised_points(rows: Sequence[AnyRow], label_share: float | None) -> list[AbPoint]:
    from stats.confidence_sequence import arms_confidence_sequence

    labelled, right = Counter[str](), Counter[str]()
    totals: list[_Total] = []
    for time, of_bucket in groupby(rows, attrgetter("bucket")):
        before = labelled.total()
        for row in of_bucket:
            labelled[row.version] += row.labelled
            right[row.version] += row.correct
        if labelled.total() > before and all(labelled[version] for version in VERSIONS):
            v1, v2 = (ArmOutcomes(labelled[version], right[version]) for version in VERSIONS)
            difference = v2.right / v2.labelled - v1.right / v1.labelled
            totals.append((time, labelled.total(), difference, (v1, v2, label_share)))
    return _points(totals, arms_confidence_sequence)


def _points(
    totals: Sequence[_Total], confidence_sequence: Callable[..., Interval]
) -> list[AbPoint]:
    """At most MAX_POINTS of them, evenly spread; the last is always among them."""
    step = -(-len(totals) // MAX_POINTS) or 1
    return [
        AbPoint(
            time=time,
            labelled=labelled,
            difference=difference,
            **asdict(confidence_sequence(*outcomes, ALPHA)),
        )
        for time, labelled, difference, outcomes in totals[::-1][::step][::-1]
    ]
