"""Removes the texts that are too old from their predictions, which stay.

To look for texts is to read all predictions of a partition. So each is read again only if it is
another one, as after a restore, or if rows came to it since.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.partitions import NEXT_ID, gaps, ids_of, partitions

ROWS_AT_A_TIME = 20_000
_REMOVE_TEXTS = text(
    "UPDATE predictions SET text = NULL WHERE id >= :start AND id < :end AND text IS NOT NULL"
)


class _Read(NamedTuple):
    """The first id of a partition that was not read, and the rows that it had got by then."""

    end: int
    inserted: int


class ExpiredTexts:
    """Remembers in which partitions it has found no text, or removed all."""

    def __init__(self, engine: AsyncEngine, rows_at_a_time: int = ROWS_AT_A_TIME) -> None:
        self._engine = engine
        self._rows_at_a_time = rows_at_a_time
        self._read: dict[int, _Read] = {}

    async def remove(self, first_kept: date) -> None:
        """Remove the texts from before a day, also in partitions that the operator has made.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        async with self._engine.connect() as connection:
            found = await partitions(connection)
        bounds = [partition.ids for partition in found if partition.ids]
        expired = range(ids_of(first_kept).start)
        present = {partition.oid for partition in found}
        self._read = {oid: read for oid, read in self._read.items() if oid in present}
        for partition in found:
            read = self._read.get(partition.oid)
            # One that gets today's rows, too, is read once a day, and once more when it has ended.
            has_ended = partition.ids is not None and partition.ids.stop <= expired.stop
            if has_ended and read is not None and read.inserted != partition.inserted:
                read = None
            # What no other partition has lies in the DEFAULT partition.
            for ids in [partition.ids] if partition.ids else gaps(expired, bounds):
                start = max(ids.start, read.end if read else 0)
                await self._remove(range(start, min(ids.stop, expired.stop)))
            inserted = partition.inserted if has_ended else -1
            self._read[partition.oid] = _Read(expired.stop, inserted)

    async def _remove(self, ids: range) -> None:
        """Remove the texts of some rows at a time, so that writers go on meanwhile."""
        start, end = UUID(int=ids.start), UUID(int=ids.stop)
        while start < end:
            part = {"start": start, "end": end}
            async with self._engine.begin() as connection:
                rows = {**part, "rows": self._rows_at_a_time}
                start = await connection.scalar(NEXT_ID, rows) or end
                await connection.execute(_REMOVE_TEXTS, {**part, "end": start})
