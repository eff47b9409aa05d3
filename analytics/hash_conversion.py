"""Keys the hashes that earlier releases wrote, in the background and a few thousand at a time.

Nothing reads or writes differently meanwhile: the writer keys the rows that its batch touches, and
feedback finds rows of both kinds. PostgreSQL computes the HMACs.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.partitions import NEXT_ID
from analytics.rollups import WRITERS_LOCK
from analytics.tables import hash_conversions

logger = logging.getLogger("bentoml.sentiment.log")

# A batch takes some 50 ms, for which a batch of the writer may wait.
BATCH_ROWS = 5_000
# Twice as long as a batch takes: the log has most of the database.
PAUSE_SECONDS = 0.1
# Another process converts, or there is nothing to convert; a downgraded release might have written.
IDLE_SECONDS = 60.0
# One process converts at a time. The number is the ASCII of "keyhash_".
_LOCK = text("SELECT pg_try_advisory_xact_lock(x'6B6579686173685F'::bigint)")
# No UUIDv7 comes near it.
_LAST_ID = UUID(int=(1 << 128) - 1)
_KEY_PREDICTIONS = text(
    "UPDATE predictions AS p SET hash_key_id = 1,"
    " text_sha256 = log_hash(text_sha256, 1::smallint),"
    " subject_key = log_hash(subject_key, 1::smallint)"
    " WHERE id >= :start AND id < :end AND hash_key_id IS NULL"
    " AND (text_sha256 IS NOT NULL OR subject_key IS NOT NULL)"
)


# The first deletes the rows of a batch that are there keyed already: there are none unless a
# database was changed by hand. The second keys the rest.
_TABLES = {
    table: (sql.load(f"drop_plain_{table}"), sql.load(f"convert_{table}"))
    for table in ("compared_texts", "assignments")
}


class HashConversion:
    """Keys the rows of earlier releases until none is left."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self) -> None:
        """Convert for ever; there is nothing to do after the first time.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        while True:
            has_more = await self.convert_batch()
            await asyncio.sleep(PAUSE_SECONDS if has_more else IDLE_SECONDS)

    async def convert_all(self) -> None:
        """Convert every row that is there, without a pause."""
        while await self.convert_batch():
            pass

    async def convert_batch(self) -> bool:
        """Convert one batch; False if none is left, or another process converts."""
        async with self._engine.begin() as connection:
            if not (await connection.execute(_LOCK)).scalar():
                return False
            # Predictions last: the tests have their keys by then.
            unfinished = select(hash_conversions).where(hash_conversions.c.finished_at.is_(None))
            rows = {row.relation: row for row in await connection.execute(unfinished)}
            for table, statements in _TABLES.items():
                if table in rows:
                    await self._convert_small(connection, table, statements)
                    return True
            if "predictions" not in rows:
                return False
            await self._convert_predictions(connection, rows["predictions"].next_id)
            return True

    async def _convert_small(
        self, connection: AsyncConnection, table: str, statements: tuple[TextClause, TextClause]
    ) -> None:
        delete, convert = statements
        await connection.execute(WRITERS_LOCK)
        await connection.execute(delete, {"rows": BATCH_ROWS})
        result = await connection.execute(convert, {"rows": BATCH_ROWS})
        if not result.rowcount:
            await _note(connection, table, finished_at=datetime.now(UTC))

    async def _convert_predictions(self, connection: AsyncConnection, start: UUID | None) -> None:
        """Convert the next ids. Only an erasure changes rows of `predictions`, and only deletes."""
        start = start or UUID(int=0)
        part = {"start": start, "end": _LAST_ID, "rows": BATCH_ROWS}
        end = (await connection.execute(NEXT_ID, part)).scalar()
        batch = {"start": start, "end": end or _LAST_ID}
        keyed = await connection.execute(_KEY_PREDICTIONS, batch)
        if end is None:
            await _note(connection, "predictions", finished_at=datetime.now(UTC))
            if start.int or keyed.rowcount:  # there were any
                logger.info("the hashes of earlier releases are keyed")
        else:
            await _note(connection, "predictions", next_id=end)


async def _note(connection: AsyncConnection, table: str, **values: Any) -> None:
    await connection.execute(
        update(hash_conversions).where(hash_conversions.c.relation == table).values(values)
    )
