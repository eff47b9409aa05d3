"""The schema is dropped and loaded from a dump while a shipper runs, and nothing is rejected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.rejected import REJECTED
from analytics.log.segments import segments
from core.types import Assignment, Experiment, Split
from migrations.upgrade import upgrade
from tests.database import fetch, scalar
from tests.integration.logs import SpooledLog, spooled_log
from tests.integration.predictions import make_prediction
from tests.waiting import until
from tests.written_by_deae1b3 import DUMP

MODELS = """
SELECT version, revision, engine, count(*) AS rows FROM predictions
JOIN model_versions ON model_versions.id = model_version_id
WHERE engine = 'fake' GROUP BY 1, 2, 3 ORDER BY 1
"""
ROLLED_UP = """
SELECT sum(negative + neutral + positive)::int FROM rollups
JOIN model_versions ON model_versions.id = model_version_id
WHERE engine = 'fake' AND bucket_seconds = 60
"""


@pytest.fixture
async def shipped(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpooledLog]:
    """A log whose shipper runs."""
    stopping = asyncio.Event()
    async with spooled_log(tmp_path) as log:
        shipping = asyncio.create_task(log.ship_until(stopping, engine))
        yield log
        stopping.set()
        await shipping


async def restore(url: URL, dump: str) -> None:
    connection = await asyncpg.connect(
        host=str(url.query["host"]), user=url.username, database=url.database
    )
    await connection.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public; {dump}")
    await connection.close()
    await asyncio.to_thread(upgrade, url)


async def record(log: SpooledLog) -> None:
    """One prediction of each version; that of v2 is in an A/B test."""
    v1, v2 = make_prediction(), make_prediction(version="v2", endpoint="/predict/ab")
    test = Experiment(Split("salt", 50.0), v1.model, v2.model)
    await log.log.record([v1])
    await log.log.record([replace(v2, assignment=Assignment(test, b"subject"))])


async def all_shipped(log: SpooledLog) -> None:
    await until(lambda: not segments(log.folder), 20)
    assert not (log.folder / REJECTED).exists()


@pytest.mark.parametrize("dump", ["of_another_time", "empty"])
async def test_predictions_get_the_keys_of_the_restored_database(
    dump: str, shipped: SpooledLog, database_url: URL
) -> None:
    await record(shipped)
    await all_shipped(shipped)
    # In the dump, the keys that the shipper knows belong to other models and tests.
    await restore(database_url, DUMP.read_text() if dump == "of_another_time" else "")
    await record(shipped)
    await all_shipped(shipped)
    assert await asyncio.to_thread(fetch, database_url, MODELS) == [
        {"version": version, "revision": f"{version}-revision", "engine": "fake", "rows": 1}
        for version in ("v1", "v2")
    ]
    assert await asyncio.to_thread(scalar, database_url, ROLLED_UP) == 2
    tests = (
        "SELECT count(*) FROM predictions JOIN experiments ON experiments.id = experiment_id "
        "JOIN model_versions ON model_versions.id = experiments.v2_model_version_id "
        "WHERE salt = 'salt' AND revision = 'v2-revision'"
    )
    assert await asyncio.to_thread(scalar, database_url, tests) == 1
