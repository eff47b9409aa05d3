"""Sees to it that one process ships what is spooled in a folder, and that it is there."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from analytics.log.segments import segments

logger = logging.getLogger("bentoml.sentiment.log")

LOCK = "shipper.lock"
LOCK_POLL_SECONDS = 1.0
RESTART_SECONDS = 1.0
STOP_POLL_SECONDS = 0.02


class ShipperSupervisor:
    """Runs the shipper, as long as no other process that uses the folder does.

    A process of its own, so that a backlog of an hour costs requests nothing. It ends when its
    standard input does: with this process, however that ends.
    """

    def __init__(self, folder: Path, command: Sequence[str], *, cwd: Path) -> None:
        self._folder = folder
        self._command = command
        self._cwd = cwd
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name="shipping")

    async def stop(self, timeout_seconds: float) -> bool:
        """Wait until nothing is left to ship, then stop; False if something is left, and kept.

        What other processes go on writing is theirs to ship.
        """
        there = set(segments(self._folder))
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = there.intersection(segments(self._folder))
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(STOP_POLL_SECONDS)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if left:
            logger.error("stopping with %d segments in %s, for the next", len(left), self._folder)
        return not left

    async def _keep_running(self) -> None:
        lock = FileLock(self._folder / LOCK)
        while True:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                await asyncio.sleep(LOCK_POLL_SECONDS)
                continue
            try:
                while True:
                    await self._run_once()
                    await asyncio.sleep(RESTART_SECONDS)
            finally:
                lock.release()

    async def _run_once(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._cwd, stdin=PIPE
            )
        except OSError:
            logger.exception("the shipper of the prediction log cannot be started")
            return
        try:
            code = await process.wait()
            logger.error("the shipper of the prediction log ended with %d; starting it again", code)
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()  # what it has not confirmed is shipped again, and skipped
                await process.wait()
            raise
