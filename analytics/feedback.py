"""Feedback: the true label of a prediction, kept in full; the latest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.additive import add_to
from analytics.database import reading
from analytics.rollups import WRITERS_LOCK
from analytics.statistics.histogram import CONFIDENCE
from analytics.tables import feedback, label_rollups, predictions
from errors import PredictionNotFound
from ids import id_range
from values import Sentiment

# A prediction that another API process made may still be on its way to PostgreSQL.
YOUNG = timedelta(seconds=3)
POLL_SECONDS = 0.1
# What changes in the counts when a prediction's label does.
_ADD_LABEL = add_to(
    label_rollups,
    f"""(SELECT created_at AS at, model_version_id, endpoint,
        {CONFIDENCE.sql("confidence")} AS confidence_bin,
        CAST(:labelled AS bigint) AS labelled, CAST(:correct AS bigint) AS correct,
        confidence::double precision * :labelled AS confidence_sum
    FROM predictions WHERE id = :id) AS changed""",
)


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
            known = select(predictions.c.sentiment).where(predictions.c.id == prediction_id)
            sentiment = (await connection.execute(known)).scalar_one_or_none()
            if sentiment is None:
                return False
            # Two feedbacks for one prediction come in a row, so neither misses the other.
            await connection.execute(WRITERS_LOCK)
            before = await _latest_label(connection, prediction_id)
            if before != label:
                await connection.execute(
                    insert(feedback).values(
                        prediction_id=prediction_id, label=label, created_at=datetime.now(UTC)
                    )
                )
                await connection.execute(
                    _ADD_LABEL,
                    {
                        "id": prediction_id,
                        "labelled": int(before is None),
                        "correct": int(label == sentiment) - int(before == sentiment),
                    },
                )
        return True


async def _latest_label(connection: AsyncConnection, prediction_id: UUID) -> str | None:
    latest = await connection.execute(
        select(feedback.c.label)
        .where(feedback.c.prediction_id == prediction_id)
        .order_by(feedback.c.id.desc())
        .limit(1)
    )
    label: str | None = latest.scalar_one_or_none()
    return label


def _is_young(prediction_id: UUID) -> bool:
    """Whether a UUIDv7 was just made."""
    now = datetime.now(UTC)
    earliest, latest = id_range(now - YOUNG, now + YOUNG)
    return prediction_id.version == 7 and earliest <= prediction_id < latest
