"""Faults of Redis, PostgreSQL, the spool and the sinks, and the end of the service."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import httpx
import psutil
from msgspec.structs import replace

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import new_segment
from core.paths import ROOT
from tests.database import scalar
from tests.integration.predictions import make_prediction
from tests.prove.alerts.faults import Scene, fault, repeating
from tests.prove.alerts.serving_faults import predict
from tests.served.stack import RECOVERY_SECONDS, Stack, stopped
from tests.waiting import until

# The smallest that LOG_MAX_BYTES may be; a batch of 100 long texts is some 500 KB of it.
MAX_BYTES = 64 << 20
BATCH_BYTES = 500_000
LONG = "word " * 999
# The smallest that LOG_SINK_MAX_PREDICTIONS may be.
SINK_MAX_PREDICTIONS = 1_000
# Longer than an analytics query may take without an alert, and shorter than its time-out.
LOCKED_SECONDS, FREE_SECONDS = 2.5, 0.3
END_SECONDS = 60.0
_numbers = itertools.count()


async def killed(*processes: psutil.Process) -> None:
    """Until they are gone. Waiting takes children of this process out of the process table."""
    for process in processes:
        process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, RECOVERY_SECONDS)
    assert alive == []


@fault("RedisFailing")
async def redis_is_killed(scene: Scene) -> AsyncIterator[None]:
    stack = scene.stack
    await killed(stack.redis_server())
    async with repeating(predict, stack):
        try:
            yield
        finally:
            await asyncio.to_thread(stack.restart_redis)


async def summarise(client: httpx.AsyncClient) -> None:
    """As a client of an address of its own, which has a limit of its own."""
    number = next(_numbers)
    address = {"X-Forwarded-For": f"10.255.{number >> 8 & 255}.{number & 255}"}
    await client.get("/analytics/summary", headers=address)


@asynccontextmanager
async def locking(stack: Stack, table: str) -> AsyncIterator[None]:
    """Somebody locks a table for seconds, again and again."""
    url = stack.bento.database_url
    connection = await asyncpg.connect(
        host=str(url.query["host"]), user=url.username, database=url.database
    )

    async def lock() -> None:
        while True:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table}")
                await asyncio.sleep(LOCKED_SECONDS)
            await asyncio.sleep(FREE_SECONDS)

    task = asyncio.create_task(lock())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


@fault("DatabaseSlow")
async def rollups_are_locked(scene: Scene) -> AsyncIterator[None]:
    async with locking(scene.stack, "rollups"), repeating(summarise, scene.stack, clients=4):
        yield


@fault("BackgroundTaskFailing")
async def shipper_is_killed_whenever_it_starts(scene: Scene) -> AsyncIterator[None]:
    async def kill_shipper() -> None:
        while True:
            for shipper in scene.stack.workers("analytics.log"):
                shipper.kill()
            await asyncio.sleep(0.2)

    task = asyncio.create_task(kill_shipper())
    try:
        yield
    finally:
        task.cancel()


@fault("PredictionsRejected", is_over_soon=False)
async def poison_line_is_in_the_spool(scene: Scene) -> AsyncIterator[None]:
    stack = scene.stack
    poison = replace(to_record(make_prediction(), "hash"), token_count=10**9)
    segment = new_segment(stack.spool, datetime.now(UTC))
    segment.write_bytes(encode(Entry((poison,))))
    yield
    async with stack.bento.async_client() as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["log_rejects"] is True
        assert (await client.get("/readyz")).status_code == 200
        # The shipper measures it once a second, and the alert may have fired before.
        await until(lambda: stack.bento.metric("prediction_log_rejected_bytes") > 0)
        assert (await client.get("/log/stats")).json()["rejected_bytes"] > 0


@fault("SinkBehind", "SinkLosesPredictions")
async def sink_answers_503(scene: Scene) -> AsyncIterator[None]:
    scene.events.answer = lambda _: (503, {})
    try:
        async with scene.stack.bento.async_client() as client:
            for _ in range(SINK_MAX_PREDICTIONS // 100 + 2):
                texts = [f"Event {next(_numbers)}." for _ in range(100)]
                assert (await client.post("/predict/batch", json={"texts": texts})).is_success
        yield
    finally:
        scene.events.answer = lambda _: (202, {})


@fault("LogBehind", "RolloutFrozen")
async def postgresql_is_killed(scene: Scene) -> AsyncIterator[None]:
    stack = scene.stack
    server = stack.postmaster()
    await killed(server, *server.children())
    async with repeating(predict, stack), stack.bento.async_client() as client:
        try:
            yield
            # The figures that operators see move on too.
            first = (await client.get("/log/stats")).json()
            await asyncio.sleep(2.0)
            second = (await client.get("/log/stats")).json()
            assert second["oldest_seconds"] > first["oldest_seconds"] > 5
        finally:
            await asyncio.to_thread(stack.restart_postgres)


@fault("LogNearlyFull", "PredictionsDropped")
async def postgresql_hangs_until_the_spool_is_full(scene: Scene) -> AsyncIterator[None]:
    stack = scene.stack
    batch = {"texts": [f"{LONG}{number}" for number in range(100)]}
    async with stack.bento.async_client() as client:
        for first in range(0, 100, 10):  # from here on from the cache
            part = {"texts": batch["texts"][first : first + 10]}
            assert (await client.post("/predict/batch", json=part)).is_success
        with stopped(stack.postmaster()):
            for _ in range(MAX_BYTES * 6 // 5 // BATCH_BYTES):
                reply = await client.post("/predict/batch", json=batch)
                assert reply.status_code == 200
            yield
            stats = (await client.get("/log/stats")).json()
            assert 0.8 * MAX_BYTES < stats["waiting_bytes"] <= stats["max_bytes"] == MAX_BYTES


def ship(stack: Stack, predictions: int) -> None:
    """Store what a service has left behind, with the command that the runbook names."""
    count = "SELECT count(*) FROM predictions"
    stored = scalar(stack.bento.database_url, count)
    url = stack.bento.database_url.render_as_string(hide_password=False)
    shipped = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "log", "ship", str(stack.spool), "--json"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, capture_output=True, check=False,
    )  # fmt: skip
    assert shipped.returncode == 0, shipped.stderr
    result = json.loads(shipped.stdout)
    assert (result["stored"], result["left"], result["rejected_lines"]) == (predictions, 0, 0)
    assert scalar(stack.bento.database_url, count) == stored + predictions


@fault(
    "ServiceDown", "InstanceDown", "PredictionsLeftBehind",
    is_over_soon=False, ends_service=True,
)  # fmt: skip
async def service_ends_in_an_outage(scene: Scene) -> AsyncIterator[None]:
    """It leaves predictions, and a command stores them."""
    stack = scene.stack
    overdue = "prediction_log_overdue_predictions"
    await until(lambda: stack.bento.metric(overdue) == 0, RECOVERY_SECONDS)
    with stopped(stack.postmaster()):
        async with stack.bento.async_client() as client:
            batch = {"texts": [f"Left behind, {number}." for number in range(100)]}
            assert (await client.post("/predict/batch", json=batch)).status_code == 200
        await until(lambda: stack.bento.metric(overdue) == 100, RECOVERY_SECONDS)
        await asyncio.sleep(3.0)  # Prometheus has looked again
        stack.bento.process.terminate()
        assert await asyncio.to_thread(stack.bento.process.wait, END_SECONDS) == 0
        log = stack.bento.log.read_text(encoding="utf-8")
        assert f"stopped with 100 predictions left in {stack.spool}" in log
        yield
    await asyncio.to_thread(ship, stack, 100)
