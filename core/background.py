"""Background tasks of a process: a task that fails is logged, counted and started again."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from core import metrics

logger = logging.getLogger("bentoml.sentiment.background")

FIRST_RESTART_SECONDS = 0.1
LAST_RESTART_SECONDS = 5.0
# A task that ran for so long was well: its next failure starts again with the shortest pause.
WELL_SECONDS = 60.0
# With the longest pause, about one log line a minute; the metric counts every failure.
LOG_EVERY_FAILURES = 12


class Background(ABC):
    """Runs `_run` for ever as one task, which `stop` cancels and waits for."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = run_in_background(type(self).__name__, self._run)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @abstractmethod
    async def _run(self) -> None: ...


def run_in_background(
    name: str, run: Callable[[], Awaitable[None]], *, until_done: bool = False
) -> asyncio.Task[None]:
    """Start a task that runs `run` until it is cancelled, again after each failure.

    With `until_done`, the task ends when `run` returns; otherwise that counts as a failure too.
    `name` is a value of the metric's label, so it comes from a closed set.
    """
    return asyncio.create_task(_supervise(name, run, until_done=until_done), name=name)


async def _supervise(name: str, run: Callable[[], Awaitable[None]], *, until_done: bool) -> None:
    failures = Failures(name)
    while True:
        started = time.monotonic()
        error: BaseException | None = None
        try:
            await run()
        except asyncio.CancelledError as cancelled:
            if _is_cancelled():
                raise
            error = cancelled  # it came from within, and must not end the task
        except Exception as failure:  # noqa: BLE001  the edge of every background task
            error = failure
        else:
            if until_done:
                return
        await asyncio.sleep(failures.add(error, ran_seconds=time.monotonic() - started))


class Failures:
    """The failures of one background task or thread, and the pause before its next start."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def add(self, error: BaseException | None, *, ran_seconds: float) -> float:
        """Log and count a failure; without an error the task ended. Returns the pause, seconds."""
        if ran_seconds > WELL_SECONDS:
            self._count = 0
        pause: float = min(FIRST_RESTART_SECONDS * 2 ** min(self._count, 10), LAST_RESTART_SECONDS)
        if self._count % LOG_EVERY_FAILURES == 0:
            logger.error(
                "background task %s %s and starts again after %.1f s",
                self._name,
                "ended" if error is None else "failed",
                pause,
                exc_info=error,
            )
        self._count += 1
        metrics.background_failures.labels(self._name).inc()
        return pause


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
