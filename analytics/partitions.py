"""The partitions of the prediction log, one a UTC day: created when needed, dropped when expired.

`predictions` is partitioned by its id, a UUIDv7, which begins with the time (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Delete, bindparam, delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.sql import ddl
from analytics.tables import (
    BUCKET_SECONDS,
    ROLLUP_TABLES,
    assignments,
    compared_texts,
    comparisons,
    failures,
    feedback,
)
from core.uuid7 import first_id

_DAY = timedelta(days=1)
_NAME = "predictions_%Y%m%d"
# Every later query would wait behind a lock that is waited for.
_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '2s'")
_MISSING = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS needed (name) "
    "WHERE to_regclass(name) IS NULL"
)
_PRESENT = text(
    "SELECT inhrelid::regclass::text FROM pg_inherits "
    "WHERE inhparent = 'predictions'::regclass ORDER BY 1"
)


def _delete(column: Column[Any], since: str, until: str) -> Delete:
    """Delete the rows whose `column` lies between two parameters."""
    return delete(column.table).where(column >= bindparam(since), column < bindparam(until))


# The rows of a day outside its partition. A comparison may have one prediction before midnight and
# one after.
_DELETE_DAY = [
    _delete(comparisons.c.v1_prediction_id, "first_id", "end_id"),
    _delete(comparisons.c.v2_prediction_id, "first_id", "end_id"),
    _delete(feedback.c.prediction_id, "first_id", "end_id"),
    _delete(failures.c.id, "first_id", "end_id"),
    _delete(assignments.c.first_seen, "start", "end"),
    _delete(compared_texts.c.first_compared, "start", "end"),
    *(
        _delete(table.c.bucket, "start", "end").where(table.c.bucket_seconds == seconds)
        for table in ROLLUP_TABLES
        for seconds in BUCKET_SECONDS
    ),
]


async def make_partitions(connection: AsyncConnection, days: Iterable[date]) -> None:
    """Create the missing partitions of `days`; the caller holds the writers' lock."""
    needed = {f"{day:{_NAME}}": day for day in days}
    missing = (await connection.scalars(_MISSING, {"names": list(needed)})).all()
    for name in missing:
        first, end = _ids_of(needed[name])
        await connection.execute(
            ddl("CREATE TABLE %(name)s (LIKE predictions INCLUDING CONSTRAINTS)", name=name)
        )
        # To attach a table blocks nobody; CREATE TABLE .. PARTITION OF would lock all predictions.
        await connection.execute(
            ddl(
                "ALTER TABLE predictions ATTACH PARTITION %(name)s "
                "FOR VALUES FROM ('%(first)s') TO ('%(end)s')",
                name=name,
                first=str(first),
                end=str(end),
            )
        )


async def drop_day(connection: AsyncConnection, day: date) -> bool:
    """Drop a day's partition and its rows in other tables; False if there is no partition.

    The caller holds the writers' lock. Detaching locks all predictions for a moment.
    """
    if day not in await partition_days(connection):
        return False
    first, end = _ids_of(day)
    start = datetime.combine(day, time(), UTC)
    bounds = {"first_id": first, "end_id": end, "start": start, "end": start + _DAY}
    await connection.execute(_LOCK_TIMEOUT)
    for statement in _DELETE_DAY:
        await connection.execute(statement, bounds)
    name = f"{day:{_NAME}}"
    await connection.execute(ddl("ALTER TABLE predictions DETACH PARTITION %(name)s", name=name))
    await connection.execute(ddl("DROP TABLE %(name)s", name=name))
    return True


async def partition_days(connection: AsyncConnection) -> list[date]:
    """The days that have a partition, ascending; partitions with other names are left out."""
    days = map(_day_of, (await connection.scalars(_PRESENT)).all())
    return [day for day in days if day is not None]


def _day_of(name: str) -> date | None:
    """The day of a partition that `make_partitions` named."""
    try:
        day = datetime.strptime(name, _NAME).replace(tzinfo=UTC).date()
    except ValueError:
        return None
    return day if f"{day:{_NAME}}" == name else None


def _ids_of(day: date) -> tuple[UUID, UUID]:
    """The first id of `day` and that of the next day."""
    start = datetime.combine(day, time(), UTC)
    return first_id(start), first_id(start + _DAY)
