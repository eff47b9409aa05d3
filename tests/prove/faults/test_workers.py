"""Workers of each kind are killed and stopped under traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served.stack import (
    HANGING_SECONDS,
    RECOVERY_SECONDS,
    Stack,
    gone_and_back,
    stack_in,
)
from tests.served.traffic import CLIENTS
from tests.waiting import until


@pytest.fixture(scope="module")
def stack(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("workers"), bentoml_home) as made:
        yield made


async def test_hanging_api_worker_is_replaced(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [worker, _] = stack.workers("--service-name sentiment --backlog")
        worker.suspend()
        await until(
            gone_and_back(stack, "--service-name sentiment --backlog", worker), HANGING_SECONDS
        )
        await sent.answers(300)
    assert sent.broken <= CLIENTS
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_api_worker_breaks_only_its_open_requests(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [worker, _] = stack.workers("--service-name sentiment --backlog")
        worker.kill()
        await sent.answers(300)
        await until(
            lambda: len(stack.workers("--service-name sentiment --backlog")) == 2, RECOVERY_SECONDS
        )
    assert sent.refusals == []
    assert sent.broken <= CLIENTS
    await stack.stored_is_what_was_acknowledged(sent)


async def test_killed_shipper_fails_no_request(stack: Stack) -> None:
    async with stack.traffic() as sent:
        [shipper] = stack.workers("analytics.log")
        shipper.kill()
        await sent.answers(100)
        await until(gone_and_back(stack, "analytics.log", shipper), RECOVERY_SECONDS)
    assert (sent.refusals, sent.broken) == ([], 0)
    await stack.stored_is_what_was_acknowledged(sent)


@pytest.mark.last  # later workers would start slowly
async def test_killed_fork_server_is_named_once_and_workers_start_without_it(stack: Stack) -> None:
    [forks] = stack.workers("fork_server.py")
    async with stack.traffic() as sent:
        forks.kill()
        for version in ("v1", "v2"):
            [runner] = stack.workers(f"sentiment_runner_{version}")
            runner.kill()
            await until(
                gone_and_back(stack, f"sentiment_runner_{version}", runner), RECOVERY_SECONDS
            )
        await sent.answers(100)
    assert (sent.refusals, sent.broken) == ([], 0)
    assert stack.bento.log.read_text().count("the fork server is lost") == 1
