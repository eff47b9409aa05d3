"""Processes are killed and stopped under traffic: what was acknowledged is stored, each once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import pytest

from analytics.log.segments import segments
from scripts.embedded import embedded_postgres, embedded_redis
from scripts.migrate import upgrade
from tests.database import fetch, scalar
from tests.served.traffic import CLIENTS, Traffic, traffic
from tests.serving import ServedBento, serve
from tests.waiting import until

RECOVERY_SECONDS = 30.0
STOP_SECONDS = 30.0


@dataclass
class Stack:
    """A served Bento with databases of its own."""

    bento: ServedBento
    postgres: Path
    redis_port: int
    spool: Path

    def workers(self, of: str) -> list[psutil.Process]:
        """The processes with `of` in their command lines, below `bentoml serve`."""
        family = psutil.Process(self.bento.process.pid).children(recursive=True)
        return [process for process in family if of in " ".join(_command(process))]

    async def stored_is_what_was_acknowledged(self, told: Traffic) -> None:
        """Each once; and the rollups have counted each once."""
        await until(lambda: not segments(self.spool), RECOVERY_SECONDS)
        rows = await asyncio.to_thread(
            fetch, self.bento.database_url, "SELECT id::text FROM predictions"
        )
        stored = [row["id"] for row in rows]
        assert set(told.acknowledged) <= set(stored)
        assert len(told.acknowledged) == len(set(told.acknowledged))
        counted = (
            "SELECT sum(negative + neutral + positive)::bigint FROM rollups "
            "WHERE bucket_seconds = 86400"
        )
        assert await asyncio.to_thread(scalar, self.bento.database_url, counted) == len(stored)


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return command


@contextmanager
def stack_in(folder: Path, bentoml_home: Path) -> Iterator[Stack]:
    with ExitStack() as running:
        # Not in pytest's folder, which is shut to the user that PostgreSQL runs as.
        postgres = Path(running.enter_context(TemporaryDirectory())) / "data"
        database_url = running.enter_context(embedded_postgres(postgres))
        redis_url = running.enter_context(embedded_redis(folder / "redis", max_memory="64mb"))
        upgrade(database_url)
        bento = running.enter_context(
            serve(
                bentoml_home,
                database_url,
                redis_url,
                log=folder / "log",
                API_WORKERS="2",
                LOCAL_CACHE_ENTRIES="0",
                RATE_LIMIT_PREDICT="off",
                RATE_LIMIT_BATCH="off",
                DRAIN_SECONDS="1",
                # As in an image, where BentoML by itself replaces no worker.
                BENTOML_CONTAINERIZED="true",
            )
        )
        redis_port = urlsplit(redis_url).port
        assert redis_port is not None
        yield Stack(bento, postgres, redis_port, folder / "data" / "spool")


@pytest.fixture(scope="module")
def stack(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("faults"), bentoml_home) as made:
        yield made


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process and its children, as if the machine had forgotten them."""
    family = [process, *process.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)


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
        [shipper] = stack.workers("log_shipper")
        shipper.kill()
        await told.answers(100)
        await until(gone_and_back(stack, "log_shipper", shipper), RECOVERY_SECONDS)
    assert (told.refusals, told.broken) == ([], 0)
    await stack.stored_is_what_was_acknowledged(told)


async def test_a_postgresql_that_hangs_costs_predictions_nothing(stack: Stack) -> None:
    postmaster = psutil.Process(int((stack.postgres / "postmaster.pid").read_text().split()[0]))
    async with traffic(stack.bento) as told:
        with stopped(postmaster):
            await told.answers(200)
            assert segments(stack.spool)
    assert (told.refusals, told.broken) == ([], 0)
    assert told.slowest_seconds < 5
    await stack.stored_is_what_was_acknowledged(told)


async def test_a_redis_that_hangs_costs_little(stack: Stack) -> None:
    [redis] = {
        psutil.Process(each.pid)
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == stack.redis_port
    }
    async with traffic(stack.bento) as told:
        with stopped(redis):
            await told.answers(200)
    assert (told.refusals, told.broken) == ([], 0)
    await stack.stored_is_what_was_acknowledged(told)


async def test_everything_at_once(stack: Stack) -> None:
    async with traffic(stack.bento) as told:
        for of in ("sentiment_runner_v1", "sentiment_runner_v2", "log_shipper"):
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
