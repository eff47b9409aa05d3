"""Databases and the ways to them fail under traffic, and predictions go on."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from redis.asyncio import Redis

from analytics.log.segments import segments
from tests.database import run_sql
from tests.served.stack import (
    HANGING_SECONDS,
    RECOVERY_SECONDS,
    Stack,
    assert_unnoticed,
    stopped,
    without_disk,
)
from tests.waiting import until


async def test_metrics_add_up_over_all_processes(stack: Stack) -> None:
    counts = {
        "requests": lambda: stack.bento.metric("http_requests_total", status="200"),
        "probes": lambda: stack.bento.metric("http_requests_total", endpoint="/readyz"),
        "scrapes": lambda: stack.bento.metric("http_requests_total", endpoint="/metrics"),
        "predictions": lambda: stack.bento.metric("model_predictions_total"),
        "recorded": lambda: stack.bento.metric("prediction_log_recorded_total"),
        "computed": lambda: stack.bento.metric("model_batch_texts_sum"),
        "stored": lambda: stack.bento.metric("prediction_log_stored_total"),
    }
    before = {name: await asyncio.to_thread(count) for name, count in counts.items()}
    async with stack.traffic() as sent:
        await sent.answers(200)
    await stack.stored_is_what_was_acknowledged(sent)
    after = {name: await asyncio.to_thread(count) for name, count in counts.items()}
    grown = {name: after[name] - before[name] for name in counts}
    made = len(sent.acknowledged)
    assert grown["predictions"] == grown["recorded"] == grown["stored"] == made
    assert grown["computed"] == made
    assert grown["requests"] - grown["probes"] - grown["scrapes"] == sent.statuses[200]


async def test_hanging_postgresql_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        with stopped(stack.postmaster()):
            await sent.answers(200)
            assert segments(stack.spool)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_postgresql_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        server = stack.postmaster()
        backends = server.children()
        server.kill()
        # Waiting also takes the server, a child of this process, out of the process table.
        _, alive = await asyncio.to_thread(psutil.wait_procs, [server, *backends], 10)
        assert alive == []
        await sent.answers(200)
        assert segments(stack.spool)
        await asyncio.to_thread(stack.restart_postgres)
        await sent.answers(100)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_postgresql_with_a_full_disk_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        postmaster = stack.postmaster()
        with without_disk([postmaster, *postmaster.children()]):
            stack.to_postgres.cut()  # new connections are processes of the same kind
            await sent.answers(200)
            assert segments(stack.spool)
        await asyncio.to_thread(stack.restart_postgres)
        await sent.answers(100)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_slow_postgresql_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        with stack.to_postgres.slow(1.0):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


@pytest.mark.alone
async def test_analytics_that_take_long_leave_connections_to_the_service(stack: Stack) -> None:
    lock = "DO $$ BEGIN LOCK TABLE rollups; PERFORM pg_sleep(6); END $$"
    async with stack.bento.async_client() as client:
        locking = asyncio.create_task(asyncio.to_thread(run_sql, stack.bento.database_url, lock))
        asked = [asyncio.create_task(client.get("/analytics/summary")) for _ in range(24)]
        health = []
        while not locking.done():
            health.append((await client.get("/health")).json())
            await asyncio.sleep(0.1)
        await locking
        await asyncio.gather(*asked)
    # Nearly all: a machine that stands still for seconds counts as an outage right after it.
    assert len(health) > 5
    well = [one for one in health if one["database_connected"] and not one["rollout"]["frozen"]]
    assert len(well) >= 0.8 * len(health)


async def test_broken_database_connections_fail_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        with stack.to_postgres.cutting_every(7), stack.to_redis.cutting_every(50):
            before = stack.to_postgres.pieces
            await sent.answers(500)
            await until(lambda: stack.to_postgres.pieces > before + 20)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_hanging_redis_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        with stopped(stack.redis_server()):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_slow_redis_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        with stack.to_redis.slow(0.4):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_redis_without_memory_fails_no_prediction(stack: Stack) -> None:
    path = str(stack.to_redis.target)
    async with Redis(unix_socket_path=path) as redis, stack.traffic() as sent:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", "1")
        await sent.answers(200)
        await redis.config_set("maxmemory", "64mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_redis_fails_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        stack.redis_server().kill()
        await sent.answers(200)
        await asyncio.to_thread(stack.restart_redis)
        await sent.answers(100)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_deleted_spool_folder_loses_no_prediction_and_keeps_one_shipper(
    stack: Stack,
) -> None:
    async with stack.traffic() as sent:
        with stopped(stack.postmaster()):
            await sent.answers(200)
            assert segments(stack.spool)
            await asyncio.to_thread(shutil.rmtree, stack.spool, ignore_errors=True)
            await sent.answers(200)
        await asyncio.to_thread(shutil.rmtree, stack.spool, ignore_errors=True)
        await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)
    assert len(stack.workers("analytics.log")) == 1


async def test_shipper_that_hangs_is_replaced_and_loses_no_prediction(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [shipper] = stack.workers("analytics.log")
        shipper.suspend()
        await until(lambda: not shipper.is_running(), HANGING_SECONDS)
        await until(lambda: len(stack.workers("analytics.log")) == 1, RECOVERY_SECONDS)
        await sent.answers(50)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_spool_that_cannot_be_written_is_not_ready_without_a_request(stack: Stack) -> None:
    def failures() -> float:
        return stack.bento.metric("background_failures_total", task="ShipperSupervisor")

    before = await asyncio.to_thread(failures)
    async with stack.bento.async_client() as client:
        await asyncio.to_thread(put_a_file_in_place_of, stack.spool)
        await until_status(client, "/readyz", 503)
        health = await client.get("/health")
        assert (health.status_code, health.json()["log_writable"]) == (503, False)
        for _ in range(20):  # a state, also between two requests that were refused
            await asyncio.sleep(0.1)
            assert (await client.get("/readyz")).status_code == 503
        # The task that starts the shipper failed, was seen, and goes on.
        assert await asyncio.to_thread(failures) > before
        stack.spool.unlink()
        await until_status(client, "/readyz", 200)
    await until(lambda: len(stack.workers("analytics.log")) == 1, 30)
    async with stack.traffic() as sent:
        await sent.answers(100)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


def put_a_file_in_place_of(folder: Path) -> None:
    """No folder can be made there then, not even by root; until then the service makes it again."""
    while not folder.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(FileExistsError):
            folder.touch(exist_ok=False)


async def until_status(client: httpx.AsyncClient, path: str, status: int) -> None:
    """Every process answers with this status, several times in a row."""
    in_a_row = 0
    async with asyncio.timeout(30):
        while in_a_row < 10:
            reply = await client.get(path)
            in_a_row = in_a_row + 1 if reply.status_code == status else 0
            await asyncio.sleep(0.05)
