"""Stores feedback: true labels of predictions, of which the latest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.log.segments import begun_at, segments
from analytics.review.blocks import count_full_blocks
from analytics.rollups import KEEP_PARTITIONS, WRITERS_LOCK
from analytics.tables import predictions
from core.errors import DatabaseUnavailable, PredictionNotFound
from core.postgres import reading
from core.types import Sentiment
from core.uuid7 import id_range

# The shipper of this or another machine may not have stored a prediction this young.
YOUNG = timedelta(seconds=3)
# And a busy one of another machine, whose spool cannot be seen here, one this recent.
RECENT = timedelta(seconds=30)
POLL_SECONDS = 0.1
_STORE_LABELS = sql.load("store_labels")


class FeedbackStore:
    """Adds true labels to predictions that PostgreSQL has or will have in a moment."""

    def __init__(self, engine: AsyncEngine, spool: Path, *, request_seconds: float = 0.0) -> None:
        """`spool` is the folder where predictions wait for PostgreSQL.

        An id may be `request_seconds` older than its prediction's line there.
        """
        self._engine = engine
        self._spool = spool
        self._request_time = timedelta(seconds=request_seconds)

    async def add(self, prediction_id: UUID, label: Sentiment) -> None:
        """Store `label`; repeating the latest label changes nothing.

        Raises:
            PredictionNotFound: no prediction has this id.
            DatabaseUnavailable: PostgreSQL is away, or may not have the prediction yet.
        """
        while not await self._add_if_known(prediction_id, label):
            if not _was_made_within(YOUNG, prediction_id):
                if self._may_be_spooled(prediction_id) or _was_made_within(RECENT, prediction_id):
                    raise DatabaseUnavailable("Predictions are being stored with delay; try again")
                raise PredictionNotFound(f"There is no prediction {prediction_id}")
            await asyncio.sleep(POLL_SECONDS)

    def _may_be_spooled(self, prediction_id: UUID) -> bool:
        """Whether the prediction may wait in this machine's spool."""
        waiting = segments(self._spool)
        if not waiting:
            return False
        earliest, latest = id_range(begun_at(waiting[0]) - self._request_time, datetime.now(UTC))
        return earliest <= prediction_id < latest

    async def _add_if_known(self, prediction_id: UUID, label: Sentiment) -> bool:
        async with reading(self._engine) as connection, connection.begin():
            await connection.execute(KEEP_PARTITIONS)
            known = select(predictions.c.id).where(predictions.c.id == prediction_id)
            if (await connection.execute(known)).first() is None:
                return False
            await store_labels(connection, [(prediction_id, label, datetime.now(UTC))])
        return True


async def store_labels(
    connection: AsyncConnection, labels: Sequence[tuple[UUID, Sentiment, datetime]]
) -> int:
    """Store and count at least one label, at most one for each prediction.

    Labels that repeat the latest one, or whose predictions are unknown, are left out. Returns how
    many are stored.
    """
    ids, sentiments, times = zip(*labels, strict=True)
    # The lock keeps two labels of one prediction in order, so that each sees the one before it.
    await connection.execute(WRITERS_LOCK)
    parameters = {"ids": ids, "labels": sentiments, "times": times}
    stored = (await connection.execute(_STORE_LABELS, parameters)).rowcount
    await count_full_blocks(connection, ids)
    return stored


def _was_made_within(time: timedelta, prediction_id: UUID) -> bool:
    """Whether a UUIDv7 was made in this time before now."""
    now = datetime.now(UTC)
    earliest, latest = id_range(now - time, now + YOUNG)
    return prediction_id.version == 7 and earliest <= prediction_id < latest
