"""Feedback: the true label of a prediction, kept in full; the latest counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.feedback.labelling import keep_labels
from analytics.log.segments import begun_at, segments
from analytics.tables import predictions
from core.errors import DatabaseUnavailable, PredictionNotFound
from core.postgres import reading
from core.types import Sentiment
from core.uuid7 import id_range

# A prediction may still be on its way to PostgreSQL, from another machine too.
YOUNG = timedelta(seconds=3)
POLL_SECONDS = 0.1


class FeedbackStore:
    """Joins true labels to predictions."""

    def __init__(self, engine: AsyncEngine, spool: Path) -> None:
        """`spool` is the folder where predictions wait for PostgreSQL."""
        self._engine = engine
        self._spool = spool

    async def add(self, prediction_id: UUID, label: Sentiment) -> None:
        """Keep `label`; the same label again changes nothing.

        Raises:
            PredictionNotFound: there is no such prediction.
            DatabaseUnavailable: PostgreSQL cannot answer now, or has yet to be told of it.
        """
        while not await self._add_if_known(prediction_id, label):
            if not _is_young(prediction_id):
                if self._may_wait(prediction_id):
                    raise DatabaseUnavailable("Predictions are being stored with delay; try again")
                raise PredictionNotFound(f"There is no prediction {prediction_id}")
            await asyncio.sleep(POLL_SECONDS)

    def _may_wait(self, prediction_id: UUID) -> bool:
        """Whether the prediction may be in this machine's spool."""
        waiting = segments(self._spool)
        if not waiting:
            return False
        earliest, latest = id_range(begun_at(waiting[0]), datetime.now(UTC))
        return earliest <= prediction_id < latest

    async def _add_if_known(self, prediction_id: UUID, label: Sentiment) -> bool:
        async with reading(self._engine) as connection, connection.begin():
            known = select(predictions.c.id).where(predictions.c.id == prediction_id)
            if (await connection.execute(known)).first() is None:
                return False
            await keep_labels(connection, [(prediction_id, label, datetime.now(UTC))])
        return True


def _is_young(prediction_id: UUID) -> bool:
    """Whether a UUIDv7 was just made."""
    now = datetime.now(UTC)
    earliest, latest = id_range(now - YOUNG, now + YOUNG)
    return prediction_id.version == 7 and earliest <= prediction_id < latest
