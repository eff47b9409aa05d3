"""Processes are killed and stopped under traffic: what was acknowledged is stored, each once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from analytics.log.segments import segments
from tests.served.stack import RECOVERY_SECONDS, Stack, stack_in, without_disk
from tests.served.traffic import CLIENTS, traffic
from tests.waiting import until

STOP_SECONDS = 30.0


@pytest.fixture(scope="module")
def stack(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("faults"), bentoml_home) as made:
        yield made


def gone_and_back(stack: Stack, of: str, killed: psutil.Process) -> Callable[[], bool]:
    return lambda: (
        any(one.pid != killed.pid for one in stack.workers(of))
        and not any(one.pid == killed.pid for one in stack.workers(of))
    )


async def test_a_killed_runner_costs_time_but_no_request(stack: Stack) -> None:
    async with traffic(stack.bento) as told:
        [runner] = stack.workers("sentiment_runner_v1")
        runner.kill()
        await told.answers(100)
        await until(gone_and_back(stack, "sentiment_runner_v1", runner), RECOVERY_SECONDS)
    assert told.refusals == []
    assert told.broken == 0
    assert told.slowest_seconds < RECOVERY_SECONDS
    await stack.stored_is_what_was_acknowledged(told)


async def test_a_killed_api_worker_costs_what_it_was_answering(stack: Stack) -> None:
    async with traffic(stack.bento) as told:
        [worker, _] = stack.workers("--service-name sentiment --backlog")
        worker.kill()
        await told.answers(300)
        await until(
            lambda: len(stack.workers("--service-name sentiment --backlog")) == 2, RECOVERY_SECONDS
        )
    assert told.refusals == []
    assert told.broken <= CLIENTS
    await stack.stored_is_what_was_acknowledged(told)


async def test_a_killed_shipper_costs_nothing(stack: Stack) -> None:
    async with traffic(stack.bento) as told:
        [shipper] = stack.workers("analytics.log")
        shipper.kill()
        await told.answers(100)
        await until(gone_and_back(stack, "analytics.log", shipper), RECOVERY_SECONDS)
    assert (told.refusals, told.broken) == ([], 0)
    await stack.stored_is_what_was_acknowledged(told)


async def test_a_full_disk_under_the_spool_is_told_before_anything_is_computed(
    stack: Stack,
) -> None:
    async with traffic(stack.bento) as told:
        with without_disk(stack.workers("--service-name sentiment --backlog")):
            await until(lambda: told.readiness[503] > 0)
            refused = len(told.refusals)
            await until(lambda: len(told.refusals) > refused + 100)
        await told.answers(200)
    assert set(told.statuses) == {200, 503}
    assert set(told.refusals) == {"Predictions cannot be recorded now; try again"}
    assert told.broken == 0
    await stack.stored_is_what_was_acknowledged(told)


async def test_everything_at_once(stack: Stack) -> None:
    async with traffic(stack.bento) as told:
        for of in ("sentiment_runner_v1", "sentiment_runner_v2", "analytics.log"):
            for process in stack.workers(of):
                process.kill()
        stack.workers("--service-name sentiment --backlog")[0].kill()
        await told.answers(300)
    assert set(told.statuses) <= {200, 503}
    assert told.broken <= CLIENTS
    await stack.stored_is_what_was_acknowledged(told)


@pytest.fixture
def stack_to_stop(bentoml_home: Path, tmp_path: Path) -> Iterator[Stack]:
    with stack_in(tmp_path, bentoml_home) as made:
        yield made


async def test_a_stop_under_load_finishes_what_has_begun(stack_to_stop: Stack) -> None:
    bento = stack_to_stop.bento
    async with traffic(bento) as told:
        told.stopping = True  # what is under way is to be answered
        bento.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            assert await asyncio.to_thread(bento.process.wait) == 0
    assert (told.refusals, told.broken) == ([], 0)
    assert segments(stack_to_stop.spool) == []
    await stack_to_stop.stored_is_what_was_acknowledged(told)
