"""Removes the days of the log that are too old: their partitions and rows.

A day may have more rows than one statement can read, or delete, in its time: some thousand at a
time go before the rest, so that writers go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    FromClause,
    Table,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.partitions import begin_of_day, ids_of, may_make_partitions, partitions
from analytics.rollups import WRITERS_LOCK
from analytics.sql import ddl
from analytics.tables import (
    BUCKET_SECONDS,
    ROLLUP_TABLES,
    assignment_rollups,
    assignments,
    compared_subjects,
    compared_texts,
    comparison_rollups,
    comparisons,
    content_sketches,
    failures,
    feedback,
    review_draws,
    review_items,
)

ROWS_AT_A_TIME = 20_000
_DAY = timedelta(days=1)
_DAY_SECONDS = max(BUCKET_SECONDS)
# They stay for the life of a test.
_SUMS_OF_TESTS = (assignment_rollups, comparison_rollups)
# Every later query would wait behind a lock that is waited for.
_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '2s'")


def _delete(column: Column[Any], since: str, until: str) -> Delete:
    """Delete the rows whose `column` lies between two parameters."""
    return delete(column.table).where(column >= bindparam(since), column < bindparam(until))


def _delete_last_seen(first: Column[Any], last: Column[Any]) -> Delete:
    """Delete the texts or subjects that were seen on the day for the last time.

    One that comes again and again stays, so that it still counts once (docs/decisions/0063).
    """
    seen = func.coalesce(last, first)
    # The first condition is for the index.
    return delete(first.table).where(
        first < bindparam("end"), seen >= bindparam("start"), seen < bindparam("end")
    )


def _delete_ended(rollups: Table, test: Sequence[str], members: Sequence[Table]) -> Delete:
    """Delete the sums, by day, of tests that had their last texts or subjects until the day.

    The sums of all others stay: a verdict counts from the start of its test.
    """
    newer = rollups.alias()

    def is_same(other: FromClause) -> list[ColumnElement[bool]]:
        return [other.c[name] == rollups.c[name] for name in test]

    later = exists().where(
        newer.c.bucket_seconds == _DAY_SECONDS, newer.c.bucket >= bindparam("end"), *is_same(newer)
    )
    alive = or_(later, *(exists().where(*is_same(table)) for table in members))
    of_days = delete(rollups).where(rollups.c.bucket_seconds == _DAY_SECONDS)
    return of_days.where(rollups.c.bucket < bindparam("end"), ~alive)


def _part_of(statement: Delete) -> Delete:
    """Delete at most `rows` of the rows that a statement deletes."""
    ctid: Column[Any] = Column("ctid")
    where = cast("ColumnElement[bool]", statement.whereclause)
    some = select(ctid).select_from(statement.table).where(where).limit(bindparam("rows"))
    return delete(statement.table).where(literal_column("ctid").in_(some))


# The rows of a day outside its partition. A comparison may have one prediction before midnight and
# one after.
_DELETE_ROWS = [
    _delete(comparisons.c.v1_prediction_id, "first_id", "end_id"),
    _delete(comparisons.c.v2_prediction_id, "first_id", "end_id"),
    _delete(feedback.c.prediction_id, "first_id", "end_id"),
    _delete(review_items.c.prediction_id, "first_id", "end_id"),
    _delete(review_draws.c.until, "start", "end"),
    _delete(failures.c.id, "first_id", "end_id"),
    _delete(content_sketches.c.id, "first_id", "end_id"),
    _delete_last_seen(assignments.c.first_seen, assignments.c.last_seen),
    _delete_last_seen(compared_texts.c.first_compared, compared_texts.c.last_compared),
    _delete(compared_subjects.c.last_compared, "start", "end"),
]
_DELETE_PARTS = list(map(_part_of, _DELETE_ROWS))
# And its sums, of which there are few.
_DELETE_SUMS = [
    *(
        _delete(table.c.bucket, "start", "end").where(table.c.bucket_seconds == seconds)
        for table in ROLLUP_TABLES
        for seconds in BUCKET_SECONDS
        if seconds < _DAY_SECONDS or table not in _SUMS_OF_TESTS
    ),
    _delete_ended(assignment_rollups, ["experiment_id"], [assignments]),
    _delete_ended(
        comparison_rollups, ["v1_model_version_id", "v2_model_version_id"], [compared_texts]
    ),
]


async def delete_rows_of_day(
    engine: AsyncEngine, day: date, rows_at_a_time: int = ROWS_AT_A_TIME
) -> None:
    """Delete most of what `drop_day` would, some rows at a time, so that writers go on.

    Only where the role may drop the day's partition then.
    """
    async with engine.connect() as connection:
        if not await may_make_partitions(connection):
            return
    for statement in _DELETE_PARTS:
        deleted = rows_at_a_time
        while deleted == rows_at_a_time:
            async with engine.begin() as connection:
                await connection.execute(WRITERS_LOCK)
                parameters = {**_bounds(day), "rows": rows_at_a_time}
                deleted = (await connection.execute(statement, parameters)).rowcount


async def drop_day(connection: AsyncConnection, day: date) -> bool:
    """Drop a day's partition and its rows in other tables; False if there is no partition.

    The caller holds `DROP_PARTITIONS` and the writers' lock. Detaching locks all predictions for a
    moment.
    """
    names = [partition.name for partition in await partitions(connection) if partition.day == day]
    if not names:
        return False
    await connection.execute(_LOCK_TIMEOUT)
    for statement in (*_DELETE_ROWS, *_DELETE_SUMS):
        await connection.execute(statement, _bounds(day))
    for name in names:
        await connection.execute(
            ddl("ALTER TABLE predictions DETACH PARTITION %(name)s", name=name)
        )
        await connection.execute(ddl("DROP TABLE %(name)s", name=name))
    return True


def _bounds(day: date) -> dict[str, UUID | datetime]:
    """The parameters of the statements that delete a day."""
    ids, start = ids_of(day), begin_of_day(day)
    first, end = UUID(int=ids.start), UUID(int=ids.stop)
    return {"first_id": first, "end_id": end, "start": start, "end": start + _DAY}
