"""Feedback in a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import create_engine
from analytics.feedback import FeedbackStore
from analytics.log_writer import LogWriter
from analytics.prediction_log import PredictionLog
from errors import DatabaseUnavailable, PredictionNotFound
from ids import new_id
from tests.integration.predictions import make_prediction

OLD_ID = UUID("01932c07-7d5e-7a63-9f8e-3f5ad11f6a01")


@pytest.fixture
async def log(engine: AsyncEngine) -> AsyncIterator[PredictionLog]:
    """A log that would sit on what it has for a minute if nobody hurried it."""
    log = PredictionLog(LogWriter(engine, text_storage="hash"), flush_seconds=60, max_pending=1_000)
    log.start()
    yield log
    await log.stop(5)


async def labels(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT label FROM feedback ORDER BY id")))


async def test_feedback_on_a_prediction_still_in_memory_is_taken(
    engine: AsyncEngine, log: PredictionLog
) -> None:
    prediction = make_prediction()
    log.record([prediction])
    store = FeedbackStore(engine, lambda: log.flush(5))
    await store.add(prediction.id, "negative")
    await store.add(prediction.id, "negative")
    await store.add(prediction.id, "positive")
    await store.add(prediction.id, "negative")
    assert await labels(engine) == ["negative", "positive", "negative"]


async def test_equal_feedback_at_once_is_kept_once(engine: AsyncEngine, log: PredictionLog) -> None:
    prediction = make_prediction()
    log.record([prediction])
    store = FeedbackStore(engine, lambda: log.flush(5))
    await asyncio.gather(*(store.add(prediction.id, "positive") for _ in range(8)))
    assert await labels(engine) == ["positive"]


async def test_a_prediction_that_another_process_still_holds_is_waited_for(
    engine: AsyncEngine,
) -> None:
    prediction = make_prediction()
    asked = asyncio.Event()

    async def flush() -> None:
        asked.set()

    adding = asyncio.create_task(FeedbackStore(engine, flush).add(prediction.id, "positive"))
    await asked.wait()
    await LogWriter(engine, text_storage="hash").write([prediction], [])
    async with asyncio.timeout(5):
        await adding
    assert await labels(engine) == ["positive"]


async def test_feedback_joins_its_own_prediction_only(
    engine: AsyncEngine, log: PredictionLog
) -> None:
    one, other = make_prediction(), make_prediction()
    log.record([one, other])
    store = FeedbackStore(engine, lambda: log.flush(5))
    await store.add(one.id, "positive")
    await store.add(other.id, "positive")
    await store.add(one.id, "positive")
    async with engine.connect() as connection:
        joined = await connection.execute(
            text("SELECT prediction_id, label FROM feedback ORDER BY id")
        )
        assert [tuple(row) for row in joined] == [(one.id, "positive"), (other.id, "positive")]


@pytest.mark.parametrize("unknown", [OLD_ID, UUID(int=0), new_id(datetime.now(UTC))])
async def test_an_unknown_prediction_is_not_found(
    engine: AsyncEngine, log: PredictionLog, unknown: UUID
) -> None:
    store = FeedbackStore(engine, lambda: log.flush(5))
    with pytest.raises(PredictionNotFound, match=str(unknown)):
        await store.add(unknown, "positive")
    assert await labels(engine) == []


async def test_without_postgresql_feedback_is_unavailable(database_url: URL) -> None:
    engine = create_engine(
        database_url.update_query_dict({"host": "/nowhere"}), pool_size=2, timeout_seconds=1
    )

    async def flush() -> None:
        return None

    with pytest.raises(DatabaseUnavailable):
        await FeedbackStore(engine, flush).add(OLD_ID, "positive")
    await engine.dispose()
