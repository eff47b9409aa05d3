"""Redis and PostgreSQL die under a served Bento while clients go on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
from tests.clusters import MIGRATED, postgres_in
from tests.database import scalar
from tests.serving import ServedBento, serve
from tests.waiting import wait_until

RECOVERY_SECONDS = 20.0


@dataclass
class Breakable:
    """A served Bento whose own PostgreSQL and Redis can be stopped and started."""

    bento: ServedBento
    postgres: ExitStack
    redis: ExitStack


@pytest.fixture
def breakable(bentoml_home: Path, tmp_path: Path) -> Iterator[Breakable]:
    with ExitStack() as stack:
        postgres = stack.enter_context(ExitStack())
        redis = stack.enter_context(ExitStack())
        server: URL = postgres.enter_context(postgres_in(tmp_path / "postgres"))
        redis_url = redis.enter_context(embedded_redis(tmp_path / "redis", max_memory="64mb"))
        bento = stack.enter_context(
            serve(
                bentoml_home,
                server.set(database=MIGRATED),
                redis_url,
                log=tmp_path / "log",
                # What Redis had is to be seen missing, not answered for by the process's own cache.
                LOCAL_CACHE_ENTRIES="0",
                # The time for the log is beside that for requests.
                STOP_SECONDS="2",
                LOG_DRAIN_SECONDS="60",
            )
        )
        yield Breakable(bento, postgres, redis)


def post_all(client: httpx.Client, tag: str) -> int:
    """One request to each predicting endpoint, each answered; how many predictions that made."""
    assert client.post("/predict", json={"text": f"One {tag}."}).status_code == 200
    batch = {"texts": [f"Two {tag}.", f"Three {tag}."]}
    assert client.post("/predict/batch", json=batch).status_code == 200
    assert client.post("/predict/ab", json={"text": f"Four {tag}."}).status_code == 200
    assert client.post("/predict/ab-compare", json={"text": f"Five {tag}."}).status_code == 200
    return 6


def test_redis_and_postgresql_outages_fail_no_prediction(
    breakable: Breakable, tmp_path: Path
) -> None:
    bento = breakable.bento
    count = "SELECT count(*) FROM predictions"
    with bento.client() as client:
        made = post_all(client, "with all up")

        breakable.redis.close()
        made += post_all(client, "without Redis")
        again = client.post("/predict", json={"text": "One with all up."})
        made += 1
        assert again.json()["cache_hit"] is False
        health = client.get("/health")
        assert health.status_code == 200
        assert health.json()["status"] == "degraded"
        assert health.json()["redis_connected"] is False
        assert client.get("/readyz").status_code == 200
        stats = client.get("/cache/stats").json()
        assert stats["cache_size"] is None
        assert client.get("/rate-limit/status").json()["limit"] == 100
        assert 'redis_errors_total{operation="lookup"}' in client.get("/metrics").text
        wait_until(lambda: scalar(bento.database_url, count) == made, RECOVERY_SECONDS)

        breakable.postgres.close()
        made += post_all(client, "without PostgreSQL")
        reply = client.get("/analytics/summary")
        assert reply.status_code == 503
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) >= 1
        assert client.get("/health").json()["database_connected"] is False
        assert client.get("/readyz").status_code == 200

        with embedded_postgres(tmp_path / "postgres"):
            wait_until(lambda: scalar(bento.database_url, count) == made, RECOVERY_SECONDS)
            ids = "SELECT count(DISTINCT id) FROM predictions"
            assert scalar(bento.database_url, ids) == made
            assert scalar(bento.database_url, "SELECT count(*) FROM comparisons") == 3
            assert client.get("/analytics/summary").json()["total_predictions"] == made

        # Without PostgreSQL again, and now it has to end.
        made += post_all(client, "at the end")
        bento.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            bento.process.wait(4)
        with pytest.raises(httpx.ConnectError):  # no wait for an end that is far
            httpx.get(f"{bento.url}/livez")
        with embedded_postgres(tmp_path / "postgres"):
            assert bento.process.wait(RECOVERY_SECONDS) == 0
            assert scalar(bento.database_url, count) == made
            assert scalar(bento.database_url, ids) == made
    assert "predictions left" not in bento.log.read_text(encoding="utf-8")
