"""Databases and the ways to them fail under traffic, and predictions go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from libfaketime import get_reload_information
from redis.asyncio import Redis

from analytics.log.segments import segments
from tests.database import scalar
from tests.served.stack import Stack, assert_unnoticed, stack_in, stopped, without_disk
from tests.served.traffic import traffic
from tests.waiting import until


@pytest.fixture(scope="module")
def stack(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("faults"), bentoml_home) as made:
        yield made


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
    async with traffic(stack.bento) as sent:
        await sent.answers(200)
    await stack.stored_is_what_was_acknowledged(sent)
    after = {name: await asyncio.to_thread(count) for name, count in counts.items()}
    grown = {name: after[name] - before[name] for name in counts}
    made = len(sent.acknowledged)
    assert grown["predictions"] == grown["recorded"] == grown["stored"] == made
    assert grown["computed"] == made
    assert grown["requests"] - grown["probes"] - grown["scrapes"] == sent.statuses[200]


async def test_hanging_postgresql_fails_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
        with stopped(stack.postmaster()):
            await sent.answers(200)
            assert segments(stack.spool)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_postgresql_fails_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
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
    async with traffic(stack.bento) as sent:
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
    async with traffic(stack.bento) as sent:
        with stack.to_postgres.slow(1.0):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_broken_database_connections_fail_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
        with stack.to_postgres.cutting_every(7), stack.to_redis.cutting_every(50):
            before = stack.to_postgres.pieces
            await sent.answers(500)
            await until(lambda: stack.to_postgres.pieces > before + 20)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_hanging_redis_fails_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
        with stopped(stack.redis_server()):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_slow_redis_fails_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
        with stack.to_redis.slow(0.4):
            await sent.answers(200)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_redis_without_memory_fails_no_prediction(stack: Stack) -> None:
    path = str(stack.to_redis.target)
    async with Redis(unix_socket_path=path) as redis, traffic(stack.bento) as sent:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", "1")
        await sent.answers(200)
        await redis.config_set("maxmemory", "64mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_redis_fails_no_prediction(stack: Stack) -> None:
    async with traffic(stack.bento) as sent:
        stack.redis_server().kill()
        await sent.answers(200)
        await asyncio.to_thread(stack.restart_redis)
        await sent.answers(100)
    assert_unnoticed(sent)
    await stack.stored_is_what_was_acknowledged(sent)


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What is written here is added to the time of day."""
    offset = tmp_path / "clock"
    offset.write_text("+0")
    return offset


@pytest.fixture
def stack_with_clock(bentoml_home: Path, tmp_path: Path, clock: Path) -> Iterator[Stack]:
    _, environment = get_reload_information()
    settings = {**environment, "FAKETIME_TIMESTAMP_FILE": str(clock), "NO_FAKE_STAT": "1"}
    del settings["FAKETIME_NO_CACHE"]
    with stack_in(tmp_path, bentoml_home, **settings, FAKETIME_CACHE_DURATION="1") as made:
        yield made


async def test_stepping_clock_fails_no_prediction(stack_with_clock: Stack, clock: Path) -> None:
    async with traffic(stack_with_clock.bento) as sent:
        for offset in ("+2d", "-1h", "+3h", "-3d", "+0"):
            await asyncio.to_thread(clock.write_text, offset)
            await asyncio.sleep(2.1)  # as long as the service may go by the time before
            await sent.answers(100)
    assert_unnoticed(sent)
    await stack_with_clock.stored_is_what_was_acknowledged(sent)
    days = "SELECT count(DISTINCT created_at::date) FROM predictions"
    assert await asyncio.to_thread(scalar, stack_with_clock.bento.database_url, days) >= 3
