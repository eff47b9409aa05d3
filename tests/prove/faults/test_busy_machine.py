"""On a machine with ten busy processes no healthy worker counts as one that hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.served.stack import Stack, stack_in
from tests.served.traffic import traffic
from tests.waiting import until

SECONDS = 90.0
WORKERS = ("sentiment_runner_v1", "sentiment_runner_v2", "--service-name sentiment --backlog")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    with ExitStack() as running:
        for _ in range(processes):
            burning = running.enter_context(
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
            )
            running.callback(burning.kill)
        yield


@pytest.fixture
def stack(bentoml_home: Path, tmp_path: Path) -> Iterator[Stack]:
    with stack_in(tmp_path, bentoml_home) as made:
        yield made


def workers(stack: Stack) -> set[psutil.Process]:
    return {process for name in WORKERS for process in stack.workers(name)}


async def test_no_worker_is_replaced_on_a_busy_machine_unless_it_hangs(stack: Stack) -> None:
    before = workers(stack)
    with busy(10):
        async with traffic(stack.bento) as sent:
            await asyncio.sleep(SECONDS)  # the load has to last
            assert workers(stack) == before
            assert sent.broken == 0
            [runner] = stack.workers("sentiment_runner_v2")
            runner.suspend()
            await until(lambda: not runner.is_running(), seconds=30)
    assert "hangs: it is killed" in stack.bento.log.read_text(encoding="utf-8")
    await stack.stored_is_what_was_acknowledged(sent)
