"""The days that the prediction log is divided into: made when they are needed, dropped when old.

Predictions are partitioned by id, a UUIDv7, which begins with its time (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.tables import BUCKET_SECONDS, ROLLUP_TABLES
from core.uuid7 import first_id

_DAY = timedelta(days=1)
_NAME = "predictions_%Y%m%d"
# Whoever waits for a lock makes every later query wait behind it.
_PATIENCE = text("SET LOCAL lock_timeout = '2s'")
_MISSING = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) AS wanted (name) "
    "WHERE to_regclass(name) IS NULL"
)
_PRESENT = text(
    "SELECT inhrelid::regclass::text FROM pg_inherits "
    "WHERE inhparent = 'predictions'::regclass ORDER BY 1"
)
# A comparison may have one prediction before midnight and one after.
_ABOUT_A_DAY = [
    text(f"DELETE FROM {table} WHERE {condition}")
    for table, condition in (
        ("comparisons", "v1_prediction_id >= :low AND v1_prediction_id < :high"),
        ("comparisons", "v2_prediction_id >= :low AND v2_prediction_id < :high"),
        ("feedback", "prediction_id >= :low AND prediction_id < :high"),
        ("failures", "id >= :low AND id < :high"),
        ("assignments", "first_seen >= :start AND first_seen < :end"),
        ("compared_texts", "first_compared >= :start AND first_compared < :end"),
        *(
            (table.name, f"bucket_seconds = {seconds} AND bucket >= :start AND bucket < :end")
            for table in ROLLUP_TABLES
            for seconds in BUCKET_SECONDS
        ),
    )
]


async def make_partitions(connection: AsyncConnection, days: Iterable[date]) -> None:
    """Make what is missing; the caller holds the writers' lock.

    Attached, not made in its place: that would need the table to itself, this does not.
    """
    wanted = {f"{day:{_NAME}}": day for day in days}
    missing = (await connection.scalars(_MISSING, {"names": list(wanted)})).all()
    for name in missing:
        low, high = _bounds(wanted[name])
        await connection.execute(
            text(f"CREATE TABLE {name} (LIKE predictions INCLUDING CONSTRAINTS)")
        )
        await connection.execute(
            text(
                f"ALTER TABLE predictions ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{low}') TO ('{high}')"
            )
        )


async def drop_day(connection: AsyncConnection, day: date) -> bool:
    """Drop a day's predictions and all that is about them, if they are there still.

    The caller holds the writers' lock. For a moment this needs the table to itself.
    """
    if day not in await partition_days(connection):
        return False
    low, high = _bounds(day)
    start = datetime.combine(day, time(), UTC)
    span = {"low": low, "high": high, "start": start, "end": start + _DAY}
    await connection.execute(_PATIENCE)
    for statement in _ABOUT_A_DAY:
        await connection.execute(statement, span)
    name = f"{day:{_NAME}}"
    await connection.execute(text(f"ALTER TABLE predictions DETACH PARTITION {name}"))
    await connection.execute(text(f"DROP TABLE {name}"))
    return True


async def partition_days(connection: AsyncConnection) -> list[date]:
    """The days that there is a partition for, ascending."""
    names = (await connection.scalars(_PRESENT)).all()
    return [datetime.strptime(name, _NAME).replace(tzinfo=UTC).date() for name in names]


def _bounds(day: date) -> tuple[UUID, UUID]:
    start = datetime.combine(day, time(), UTC)
    return first_id(start), first_id(start + _DAY)
