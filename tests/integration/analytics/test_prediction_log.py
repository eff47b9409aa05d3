"""Recorded predictions reach a real PostgreSQL that refuses rows, breaks off and comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.rejected import REJECTED
from analytics.log.segments import segments
from core.postgres import create_engine
from core.types import Comparison
from core.uuid7 import new_id
from serving.embedded.postgres import embedded_postgres
from tests.integration.logs import SpooledLog, spooled_log
from tests.integration.predictions import make_prediction
from tests.waiting import until

IDS = "SELECT id FROM predictions ORDER BY id"


@pytest.fixture
async def spooled(tmp_path: Path) -> AsyncIterator[SpooledLog]:
    async with spooled_log(tmp_path) as log:
        yield log


async def column(engine: AsyncEngine, statement: str = IDS) -> list[object]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text(statement)))


async def test_recorded_predictions_and_comparisons_are_shipped(
    engine: AsyncEngine, spooled: SpooledLog
) -> None:
    made = [make_prediction() for _ in range(20)]
    for prediction in made:
        await spooled.log.record([prediction])
    v1, v2 = make_prediction(), make_prediction(version="v2")
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    await spooled.log.record([v1, v2], comparison)
    await spooled.ship(engine)
    assert await column(engine) == [prediction.id for prediction in [*made, v1, v2]]
    assert await column(engine, "SELECT id FROM comparisons") == [comparison.id]


async def test_refused_rows_are_set_aside_and_the_others_stored(
    engine: AsyncEngine, spooled: SpooledLog
) -> None:
    bad = make_prediction(scores={"positive": 1.5})
    good = [make_prediction() for _ in range(9)]
    for prediction in [*good[:4], bad, *good[4:]]:
        await spooled.log.record([prediction])
    await spooled.ship(engine)
    assert await column(engine) == [prediction.id for prediction in good]
    [rejected] = (spooled.folder / REJECTED).read_text().splitlines()
    assert json.loads(json.loads(rejected)["line"])["predictions"][0]["id"] == str(bad.id)


async def test_a_segment_shipped_again_is_stored_and_counted_once(
    engine: AsyncEngine, spooled: SpooledLog
) -> None:
    """As after a crash between the commit and the deletion of the segment."""
    made = [make_prediction() for _ in range(20)]
    for prediction in made:
        await spooled.log.record([prediction])
    for _ in range(3):
        await spooled.ship(engine)  # the segment is not complete, so each shipper reads it whole
    assert await column(engine) == [prediction.id for prediction in made]
    counted = "SELECT sum(negative + neutral + positive)::int FROM rollups GROUP BY bucket_seconds"
    assert await column(engine, counted) == [20, 20, 20]


async def test_two_concurrent_shippers_store_each_prediction_once(
    engine: AsyncEngine, spooled: SpooledLog
) -> None:
    """As when an API process was killed and its shipper has not noticed yet."""
    stopping = asyncio.Event()
    shippers = [asyncio.create_task(spooled.ship_until(stopping, engine)) for _ in range(2)]
    made = [make_prediction() for _ in range(300)]
    for prediction in made:
        await spooled.log.record([prediction])
    await until(lambda: not segments(spooled.folder), 30)
    stopping.set()
    await asyncio.gather(*shippers)
    assert await column(engine) == [prediction.id for prediction in made]
    counted = "SELECT sum(negative + neutral + positive)::int FROM rollups GROUP BY bucket_seconds"
    assert await column(engine, counted) == [300, 300, 300]


async def test_a_write_that_loses_its_connection_is_retried(
    engine: AsyncEngine, spooled: SpooledLog
) -> None:
    made = [make_prediction(), make_prediction()]
    for prediction in made:
        await spooled.log.record([prediction])
    async with engine.connect() as holder:
        # The write inserts its model version, then waits for this lock.
        await holder.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        shipping = asyncio.create_task(spooled.ship(engine))
        deadline = time.monotonic() + 5
        while not await _terminate_waiting_backends(engine):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await holder.rollback()
    async with asyncio.timeout(10):
        await shipping
    assert await column(engine) == [prediction.id for prediction in made]


async def _terminate_waiting_backends(engine: AsyncEngine) -> bool:
    terminated = await column(
        engine,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return bool(terminated)


async def test_predictions_are_shipped_after_postgresql_restarts(
    own_postgres: tuple[ExitStack, Path, URL], spooled: SpooledLog
) -> None:
    running, folder, url = own_postgres
    engine = create_engine(url, pool_size=2, timeout_seconds=2)
    made = [make_prediction() for _ in range(3)]
    await spooled.log.record(made[:1])
    await spooled.ship(engine)
    running.close()
    for prediction in made[1:]:
        await spooled.log.record([prediction])
    shipping = asyncio.create_task(spooled.ship(engine))
    done, _ = await asyncio.wait([shipping], timeout=0.5)
    assert not done
    with embedded_postgres(folder):
        async with asyncio.timeout(20):
            await shipping
        assert await column(engine) == [prediction.id for prediction in made]
        await engine.dispose()
