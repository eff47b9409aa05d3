"""The partitions of the prediction log, one a UTC day, created when needed.

`predictions` is partitioned by its id, a UUIDv7, which begins with the time (docs/decisions/0012).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.sql import ddl
from core.uuid7 import first_id

_DAY = timedelta(days=1)
_NAME = "predictions_%Y%m%d"
# The first id past so many; NULL at the end.
NEXT_ID = text(
    "SELECT id FROM predictions WHERE id >= :start AND id < :end ORDER BY id OFFSET :rows LIMIT 1"
)
_IS_ATTACHED = text(
    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'predictions'::regclass "
    "AND inhrelid IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS t (name))"
)
_PRESENT = text(
    "SELECT c.oid::regclass::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds, "
    "c.oid::bigint AS oid, pg_stat_get_tuples_inserted(c.oid) AS inserted "
    "FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid "
    "WHERE inhparent = 'predictions'::regclass ORDER BY 1"
)
_MAY_MAKE = text(
    "SELECT has_schema_privilege(current_schema(), 'CREATE') AND pg_has_role(relowner, 'USAGE') "
    "FROM pg_class WHERE oid = 'predictions'::regclass"
)
_IS_TAKEN = text("SELECT to_regclass(:name) IS NOT NULL")
_HAS_ROWS = text(
    "SELECT EXISTS (SELECT FROM predictions WHERE tableoid = CAST(:partition AS regclass) "
    "AND id >= :first AND id < :end)"
)
# A second partition of a day, or one whose name another table has, has a number at its end.
_OWN_NAME = re.compile(r"predictions_(\d{8})(_\d+)?")
_BOUNDS = re.compile(
    r"FOR VALUES FROM \((?:'([0-9a-f-]{36})'|MINVALUE)\) TO \((?:'([0-9a-f-]{36})'|MAXVALUE)\)"
)


class Partition(NamedTuple):
    """A partition of `predictions`, as a range of ids; without one it is the DEFAULT partition."""

    name: str
    ids: range | None
    oid: int
    # Rows, since its statistics were reset.
    inserted: int

    @property
    def day(self) -> date | None:
        """The day, if `make_partitions` made it; an operator's partition may span several."""
        match = _OWN_NAME.fullmatch(self.name)
        if match is None or self.ids is None:
            return None
        try:
            day = datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).date()
        except ValueError:
            return None
        whole = ids_of(day)
        return day if whole.start <= self.ids.start and self.ids.stop <= whole.stop else None


async def make_partitions(connection: AsyncConnection, days: Iterable[date]) -> None:
    """Create the missing partitions of `days`; the caller holds the writers' lock.

    A partition of the operator's counts, whatever its name, schema and bounds are: only the ids
    that have none get one. Ids that the DEFAULT partition has already stay in it, and all of them
    where the role may make no partitions.
    """
    needed = {f"{day:{_NAME}}": day for day in days}
    if await connection.scalar(_IS_ATTACHED, {"names": list(needed)}) == len(needed):
        return
    present = await partitions(connection)
    default = next((partition.name for partition in present if partition.ids is None), None)
    if default is not None and not await may_make_partitions(connection):
        return
    for name, day in needed.items():
        for ids in gaps(ids_of(day), [partition.ids for partition in present if partition.ids]):
            if default is None or not await _has_rows(connection, default, ids):
                await _attach(connection, await _free_name(connection, name), ids)


async def may_make_partitions(connection: AsyncConnection) -> bool:
    """Whether the role owns `predictions`, and may create tables."""
    return bool(await connection.scalar(_MAY_MAKE))


async def _attach(connection: AsyncConnection, name: str, ids: range) -> None:
    await connection.execute(
        ddl("CREATE TABLE %(name)s (LIKE predictions INCLUDING CONSTRAINTS)", name=name)
    )
    # To attach a table blocks nobody; CREATE TABLE .. PARTITION OF would lock all predictions.
    await connection.execute(
        ddl(
            "ALTER TABLE predictions ATTACH PARTITION %(name)s "
            "FOR VALUES FROM ('%(first)s') TO ('%(end)s')",
            name=name,
            first=str(UUID(int=ids.start)),
            end=str(UUID(int=ids.stop)),
        )
    )


async def _free_name(connection: AsyncConnection, name: str) -> str:
    """`name`, or with a number after it if another table has it, perhaps a detached partition."""
    free, number = name, 1
    while await connection.scalar(_IS_TAKEN, {"name": free}):
        number += 1
        free = f"{name}_{number}"
    return free


async def _has_rows(connection: AsyncConnection, partition: str, ids: range) -> bool:
    bounds = {"first": UUID(int=ids.start), "end": UUID(int=ids.stop)}
    return bool(await connection.scalar(_HAS_ROWS, {"partition": partition, **bounds}))


def gaps(needed: range, covered: Sequence[range]) -> Iterator[range]:
    """The parts of `needed` that no range of `covered` has."""
    start = needed.start
    for ids in sorted(covered, key=lambda ids: ids.start):
        if ids.start >= needed.stop:
            break
        if start < ids.start:
            yield range(start, ids.start)
        start = max(start, ids.stop)
    if start < needed.stop:
        yield range(start, needed.stop)


async def has_partition(connection: AsyncConnection, first: date, end: date) -> bool:
    """Whether a partition, be it the operator's, holds any day from `first` to before `end`."""
    start, stop = ids_of(first).start, ids_of(end).start
    return any(
        ids is None or (ids.start < stop and start < ids.stop)
        for _, ids, *_ in await partitions(connection)
    )


async def partition_days(connection: AsyncConnection) -> list[date]:
    """The days that have a partition of ours, ascending; an operator's partitions do not count."""
    days = {partition.day for partition in await partitions(connection)}
    return sorted(day for day in days if day is not None)


async def uncovered_days(connection: AsyncConnection, days: Iterable[date]) -> list[date]:
    """The days of which some id has no partition, the DEFAULT partition included."""
    present = await partitions(connection)
    if any(partition.ids is None for partition in present):
        return []
    covered = [partition.ids for partition in present if partition.ids]
    return [day for day in days if any(gaps(ids_of(day), covered))]


async def partitions(connection: AsyncConnection) -> list[Partition]:
    return [
        Partition(row.name, _range_of(row.bounds), row.oid, row.inserted)
        for row in await connection.execute(_PRESENT)
    ]


def _range_of(bounds: str) -> range | None:
    """The ids between the bounds that PostgreSQL tells; None for the DEFAULT partition."""
    match = _BOUNDS.fullmatch(bounds)
    if match is None:
        return None
    first, end = match.groups()
    return range(UUID(first).int if first else 0, UUID(end).int if end else 1 << 128)


def begin_of_day(today: date, *, days_ago: int = 0) -> datetime:
    return datetime.combine(today - timedelta(days=days_ago), time(), UTC)


def ids_of(day: date) -> range:
    """The ids of a day."""
    start = begin_of_day(day)
    return range(first_id(start).int, first_id(start + _DAY).int)
