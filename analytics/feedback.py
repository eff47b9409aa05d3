"""Feedback: the true label of a prediction, kept in full; the latest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import reading
from analytics.labelling import keep_labels
from analytics.tables import predictions
from errors import PredictionNotFound
from ids import id_range
from values import Sentiment

# A prediction that another API process made may still be on its way to PostgreSQL.
YOUNG = timedelta(seconds=3)
POLL_SECONDS = 0.1


class FeedbackStore:
    """Joins true labels to predictions."""

    def __init__(self, engine: AsyncEngine, flush_log: Callable[[], Awaitable[object]]) -> None:
        """`flush_log` writes out what this process has not yet written of the prediction log."""
        self._engine = engine
        self._flush_log = flush_log

    async def add(self, prediction_id: UUID, label: Sentiment) -> None:
        """Keep `label`; the same label again changes nothing.

        Raises:
            PredictionNotFound: there is no such prediction.
            DatabaseUnavailable: PostgreSQL cannot answer now.
        """
        if not await self._add_if_known(prediction_id, label):
            await self._flush_log()
            while not await self._add_if_known(prediction_id, label):
                if not _is_young(prediction_id):
                    raise PredictionNotFound(f"There is no prediction {prediction_id}")
                await asyncio.sleep(POLL_SECONDS)

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
