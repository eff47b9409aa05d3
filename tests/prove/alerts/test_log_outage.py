"""A real outage of PostgreSQL and a real poison line fire the alerts of the prediction log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import new_segment
from tests.integration.predictions import make_prediction
from tests.prove.alerts.prometheus import Prometheus, prometheus
from tests.served.stack import RECOVERY_SECONDS, Stack, stack_in, stopped
from tests.waiting import until

FIRING_SECONDS = 60.0
# The smallest that LOG_MAX_BYTES may be; a batch of 100 long texts is some 500 KB of it.
MAX_BYTES = 64 << 20
LONG = "word " * 999
SPOOL_ALERTS = {"LogBehind", "LogNearlyFull"}


@pytest.fixture(scope="module")
def stack(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("outage")
    with stack_in(folder, bentoml_home, LOG_MAX_BYTES=str(MAX_BYTES), TEXT_STORAGE="full") as made:
        yield made


@pytest.fixture(scope="module")
def watching(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    def hurry(rule: dict[str, Any]) -> None:
        if rule.get("alert") in SPOOL_ALERTS:
            rule["for"] = "2s"
        if rule.get("alert") == "LogBehind":
            assert "> 300" in rule["expr"]
            rule["expr"] = rule["expr"].replace("> 300", "> 10")

    with prometheus(tmp_path_factory.mktemp("prometheus"), stack.bento.url, hurry=hurry) as made:
        yield made


def firing(watching: Prometheus) -> set[str]:
    return {name for name, state in watching.alerts().items() if state == "firing"}


async def test_outage_of_postgresql_fires_the_alerts_of_the_spool(
    stack: Stack, watching: Prometheus
) -> None:
    await until(lambda: bool(watching.query("up == 1")), FIRING_SECONDS)
    assert firing(watching) & SPOOL_ALERTS == set()
    batch = {"texts": [f"{LONG}{number}" for number in range(100)]}
    async with stack.bento.async_client() as client:
        await client.post("/predict/batch", json=batch)  # from here on from the cache
        with stopped(stack.postmaster()):
            await until(lambda: firing(watching) >= {"LogBehind"}, FIRING_SECONDS)
            for _ in range(int(0.85 * MAX_BYTES) // 500_000):
                reply = await client.post("/predict/batch", json=batch)
                assert reply.status_code == 200
            await until(lambda: firing(watching) >= SPOOL_ALERTS, FIRING_SECONDS)
            # The figures that operators see move on too.
            first = (await client.get("/log/stats")).json()
            await asyncio.sleep(2.0)
            second = (await client.get("/log/stats")).json()
            assert second["oldest_seconds"] > first["oldest_seconds"] > 10
            assert second["waiting_bytes"] > 0.8 * second["max_bytes"]
    await until(lambda: firing(watching) & SPOOL_ALERTS == set(), RECOVERY_SECONDS)


async def test_poison_line_fires_an_alert_and_degrades_health(
    stack: Stack, watching: Prometheus
) -> None:
    await until(lambda: bool(watching.query("prediction_log_rejected_total")), FIRING_SECONDS)
    assert "PredictionsRejected" not in firing(watching)
    poison = replace(to_record(make_prediction(), "hash"), token_count=10**9)
    segment = new_segment(stack.spool, datetime.now(UTC))
    segment.write_bytes(encode(Entry((poison,))))
    await until(lambda: "PredictionsRejected" in firing(watching), FIRING_SECONDS)
    async with stack.bento.async_client() as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["log_rejects"] is True
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/log/stats")).json()["rejected_bytes"] > 0
