"""The prediction log on a real PostgreSQL that refuses, breaks off and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import create_engine
from analytics.log_writer import LogWriter
from analytics.prediction_log import PredictionLog
from ids import new_id
from scripts.embedded import embedded_postgres
from scripts.migrate import upgrade
from tests.integration.predictions import make_prediction
from values import Comparison

IDS = "SELECT id FROM predictions ORDER BY id"


@pytest.fixture
async def log(engine: AsyncEngine) -> AsyncIterator[PredictionLog]:
    log = PredictionLog(
        LogWriter(engine, text_storage="hash"), flush_seconds=0.01, max_pending=1_000
    )
    log.start()
    yield log
    await log.stop(5)


async def column(engine: AsyncEngine, statement: str = IDS) -> list[object]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text(statement)))


def dropped() -> float:
    return REGISTRY.get_sample_value("prediction_log_dropped_total") or 0.0


async def test_what_was_flushed_is_in_postgresql(engine: AsyncEngine, log: PredictionLog) -> None:
    made = [make_prediction() for _ in range(20)]
    for one in made:
        log.record([one])
    v1, v2 = make_prediction(), make_prediction(version="v2")
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    log.record([v1, v2], comparison)
    assert await log.flush(5)
    assert await column(engine) == [one.id for one in [*made, v1, v2]]
    assert await column(engine, "SELECT id FROM comparisons") == [comparison.id]


async def test_refused_rows_are_dropped_and_later_ones_written(
    engine: AsyncEngine, log: PredictionLog
) -> None:
    before = dropped()
    log.record([make_prediction(scores={"positive": 1.5})])
    assert await log.flush(5)
    good = make_prediction()
    log.record([good])
    assert await log.flush(5)
    assert await column(engine) == [good.id]
    assert dropped() - before == 1


async def test_a_write_that_is_broken_off_is_done_again(
    engine: AsyncEngine, log: PredictionLog
) -> None:
    before = dropped()
    made = [make_prediction(), make_prediction()]
    async with engine.connect() as holder:
        # The first write ever: it has made its model version when it comes to wait for this lock.
        await holder.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        for one in made:
            log.record([one])
        deadline = time.monotonic() + 5
        while not await _cut_who_waits_for_a_lock(engine):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await holder.rollback()
    assert await log.flush(10)
    assert await column(engine) == [one.id for one in made]
    assert dropped() == before


async def _cut_who_waits_for_a_lock(engine: AsyncEngine) -> bool:
    cut = await column(
        engine,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return bool(cut)


@pytest.fixture
def own_postgres(postgres_folder: Path) -> Iterator[tuple[ExitStack, Path, URL]]:
    """A PostgreSQL that a test may stop: what stops it, its folder, and its URL."""
    folder = postgres_folder / "data"
    with ExitStack() as running:
        url = running.enter_context(embedded_postgres(folder))
        upgrade(url)
        yield running, folder, url


async def test_a_stop_of_postgresql_is_waited_out(
    own_postgres: tuple[ExitStack, Path, URL],
) -> None:
    running, folder, url = own_postgres
    engine = create_engine(url, pool_size=2, timeout_seconds=2)
    log = PredictionLog(
        LogWriter(engine, text_storage="hash"), flush_seconds=0.01, max_pending=1_000
    )
    log.start()
    made = [make_prediction() for _ in range(3)]
    log.record(made[:1])
    assert await log.flush(5)
    running.close()
    for one in made[1:]:
        log.record([one])
    assert not await log.flush(0.2)
    with embedded_postgres(folder):
        assert await log.flush(20)
        assert await column(engine) == [one.id for one in made]
        await log.stop(5)
        await engine.dispose()
