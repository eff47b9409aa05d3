"""The feedback store in a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.feedback.store import RECENT, FeedbackStore
from analytics.log.segments import new_segment, segments
from core.errors import DatabaseUnavailable, PredictionNotFound
from core.postgres import create_engine
from core.uuid7 import new_id
from tests.integration.logs import spooled_log
from tests.integration.predictions import PredictionWriter, make_prediction

OLD_ID = UUID("01932c07-7d5e-7a63-9f8e-3f5ad11f6a01")
JUST_OLDER = new_id(datetime.now(UTC) - RECENT - timedelta(seconds=2))


async def labels(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT label FROM feedback ORDER BY id")))


@pytest.fixture
def store(engine: AsyncEngine, tmp_path: Path) -> FeedbackStore:
    """A store whose spool is empty."""
    return FeedbackStore(engine, tmp_path)


async def test_labels_that_differ_from_the_latest_are_stored(
    engine: AsyncEngine, store: FeedbackStore
) -> None:
    prediction = make_prediction()
    await PredictionWriter(engine).write([prediction])
    await store.add(prediction.id, "negative")
    await store.add(prediction.id, "negative")
    await store.add(prediction.id, "positive")
    await store.add(prediction.id, "negative")
    assert await labels(engine) == ["negative", "positive", "negative"]


async def test_concurrent_equal_labels_are_stored_once(
    engine: AsyncEngine, store: FeedbackStore
) -> None:
    prediction = make_prediction()
    await PredictionWriter(engine).write([prediction])
    await asyncio.gather(*(store.add(prediction.id, "positive") for _ in range(8)))
    assert await labels(engine) == ["positive"]


async def test_feedback_waits_for_a_young_prediction(
    engine: AsyncEngine, store: FeedbackStore
) -> None:
    prediction = make_prediction()
    adding = asyncio.create_task(store.add(prediction.id, "positive"))
    done, _ = await asyncio.wait([adding], timeout=0.3)
    assert not done
    await PredictionWriter(engine).write([prediction])
    async with asyncio.timeout(5):
        await adding
    assert await labels(engine) == ["positive"]


async def test_feedback_on_a_spooled_prediction_is_unavailable_until_it_is_shipped(
    engine: AsyncEngine, store: FeedbackStore, tmp_path: Path
) -> None:
    old = datetime.now(UTC) - timedelta(minutes=5)
    prediction = make_prediction(created_at=old)
    async with spooled_log(tmp_path) as spooled:
        await spooled.log.record([prediction])
    [segment] = segments(tmp_path)
    segment.rename(new_segment(tmp_path, old))  # PostgreSQL has been away for five minutes
    with pytest.raises(DatabaseUnavailable, match="delay"):
        await store.add(prediction.id, "positive")
    with pytest.raises(PredictionNotFound):  # older than every segment of the spool
        await store.add(make_prediction(created_at=old - timedelta(minutes=1)).id, "positive")
    await spooled.ship(engine)
    await store.add(prediction.id, "positive")
    assert await labels(engine) == ["positive"]


async def test_prediction_whose_request_began_before_its_segment_may_be_spooled(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    # With an Idempotency-Key an id has the time at which its request began.
    began = datetime.now(UTC) - timedelta(seconds=20)
    prediction = make_prediction(created_at=began)
    async with spooled_log(tmp_path) as spooled:
        await spooled.log.record([prediction])
    store = FeedbackStore(engine, tmp_path, request_seconds=30)
    with pytest.raises(DatabaseUnavailable, match="delay"):
        await store.add(prediction.id, "positive")
    with pytest.raises(PredictionNotFound):  # older than any request
        await store.add(make_prediction(created_at=began - timedelta(seconds=30)).id, "positive")
    await spooled.ship(engine)
    await store.add(prediction.id, "positive")
    assert await labels(engine) == ["positive"]


async def test_feedback_joins_only_its_own_prediction(
    engine: AsyncEngine, store: FeedbackStore
) -> None:
    first, second = make_prediction(), make_prediction()
    await PredictionWriter(engine).write([first, second])
    await store.add(first.id, "positive")
    await store.add(second.id, "positive")
    await store.add(first.id, "positive")
    async with engine.connect() as connection:
        joined = await connection.execute(
            text("SELECT prediction_id, label FROM feedback ORDER BY id")
        )
        assert [tuple(row) for row in joined] == [(first.id, "positive"), (second.id, "positive")]


async def test_prediction_of_seconds_ago_may_wait_on_another_machine(
    engine: AsyncEngine, store: FeedbackStore
) -> None:
    recent = make_prediction(created_at=datetime.now(UTC) - timedelta(seconds=10))
    with pytest.raises(DatabaseUnavailable, match="delay"):
        await store.add(recent.id, "positive")
    await PredictionWriter(engine).write([recent])
    await store.add(recent.id, "positive")
    assert await labels(engine) == ["positive"]


@pytest.mark.parametrize("unknown", [OLD_ID, UUID(int=0), JUST_OLDER])
async def test_an_unknown_prediction_is_not_found(
    engine: AsyncEngine, store: FeedbackStore, unknown: UUID
) -> None:
    with pytest.raises(PredictionNotFound, match=str(unknown)):
        await store.add(unknown, "positive")
    assert await labels(engine) == []


async def test_without_postgresql_feedback_is_unavailable(
    database_url: URL, tmp_path: Path
) -> None:
    engine = create_engine(
        database_url.update_query_dict({"host": "/nowhere"}), pool_size=2, timeout_seconds=1
    )
    with pytest.raises(DatabaseUnavailable):
        await FeedbackStore(engine, tmp_path).add(OLD_ID, "positive")
    await engine.dispose()
