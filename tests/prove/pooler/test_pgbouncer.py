"""Everything that the service does with PostgreSQL, through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres
from tests.database import fetch, scalar
from tests.prove.pooler.pgbouncer import PgBouncer, pgbouncer
from tests.served.traffic import traffic
from tests.serving import serve
from tests.waiting import wait_until

RECOVERY_SECONDS = 30.0
ANALYTICS = ("summary", "timeseries", "latency", "confidence", "drift", "ab", "recent")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[URL]:
    with embedded_postgres(tmp_path / "postgres") as url:
        yield url


@pytest.fixture
def pooler(postgres: URL, tmp_path: Path) -> Iterator[PgBouncer]:
    with pgbouncer(postgres, tmp_path) as running:
        yield running


async def test_service_behind_pgbouncer_stores_all_and_answers_all(
    pooler: PgBouncer, postgres: URL, bentoml_home: Path, redis_database: object, tmp_path: Path
) -> None:
    await asyncio.to_thread(upgrade, pooler.url)
    redis_url = redis_database()  # type: ignore[operator]
    settings = {"RATE_LIMIT_PREDICT": "off", "RATE_LIMIT_BATCH": "off", "API_WORKERS": "2"}
    log = tmp_path / "log"
    with serve(bentoml_home, pooler.url, redis_url, log=log, **settings) as bento:  # type: ignore[arg-type]
        async with traffic(bento) as sent, bento.async_client() as client:
            await sent.answers(200)
            pooler.kill()
            await sent.answers(50)
            pooler.start()
            await sent.answers(200)
            for name in ANALYTICS:
                assert (await client.get(f"/analytics/{name}")).status_code == 200
            for label in ("positive", "negative"):
                body = {"prediction_id": sent.acknowledged[0], "label": label}
                assert (await client.post("/feedback", json=body)).status_code == 202
            change = {"base_version": 0, "reason": "pooled", "changes": {"salt": "pooled"}}
            assert (await client.post("/admin/rollout", json=change)).is_success
        stored = "SELECT count(*) FROM predictions"
        await asyncio.to_thread(
            wait_until,
            lambda: scalar(postgres, stored) >= len(sent.acknowledged),
            RECOVERY_SECONDS,
        )
    rows = await asyncio.to_thread(fetch, postgres, "SELECT id::text FROM predictions")
    assert sorted(row["id"] for row in rows) == sorted(sent.acknowledged)
    assert (sent.refusals, sent.broken) == ([], 0)
    labels = await asyncio.to_thread(scalar, postgres, "SELECT count(*) FROM feedback")
    assert labels == 2
    assert "prepared statement" not in log.read_text()
