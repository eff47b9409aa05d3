"""Background tasks never end unseen: a failure is logged, counted and followed by a restart."""

from __future__ import annotations

import asyncio
import logging

import pytest

from core.background import Background, run_in_background
from tests.unit.fakes import counter
from tests.waiting import until


class Failing(Background):
    """Fails or ends as its script says, then runs on."""

    def __init__(self, *script: BaseException | None) -> None:
        self.script = list(script)
        self.runs = 0

    async def _run(self) -> None:
        self.runs += 1
        if self.script:
            error = self.script.pop(0)
            if error is None:
                return
            raise error
        await asyncio.Event().wait()


def failures(name: str) -> float:
    return counter("background_failures_total", task=name)


@pytest.mark.parametrize(
    "error", [OSError(30, "Read-only file system"), ValueError("odd"), asyncio.CancelledError()]
)
async def test_failed_task_is_logged_counted_and_started_again(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    before = failures("Failing")
    task = Failing(error, error)
    task.start()
    await until(lambda: task.runs == 3)
    assert failures("Failing") - before == 2
    [line] = caplog.records  # the metric counts the second, the log does not repeat it
    assert line.levelno == logging.ERROR
    assert line.getMessage().startswith("background task Failing failed and starts again")
    assert line.exc_info is not None
    await task.stop()
    assert task.runs == 3


async def test_task_that_returns_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    before = failures("Failing")
    task = Failing(None)
    task.start()
    await until(lambda: task.runs == 2)
    await task.stop()
    assert failures("Failing") - before == 1
    assert "background task Failing ended and starts again" in caplog.text


async def test_task_with_an_end_ends_after_its_failures() -> None:
    before = failures("Ending")
    results: list[Exception | None] = [OSError("first"), None]
    done = 0

    async def run() -> None:
        nonlocal done
        if error := results.pop(0):
            raise error
        done += 1

    async with asyncio.timeout(5):
        await run_in_background("Ending", run, until_done=True)
    assert (results, done) == ([], 1)
    assert failures("Ending") - before == 1


async def test_stopped_task_stays_stopped_during_the_pause_before_a_restart() -> None:
    task = Failing(*[OSError("down")] * 100)
    task.start()
    await until(lambda: task.runs == 2)
    async with asyncio.timeout(1):
        await task.stop()
    runs = task.runs
    await asyncio.sleep(0.5)
    assert task.runs == runs
