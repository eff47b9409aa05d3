"""Keeps one shipper process running for each spool folder."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

from filelock import FileLock, Timeout

from analytics.log.segments import segments
from core.background import Background
from core.paths import ROOT

logger = logging.getLogger("bentoml.sentiment.log")

COMMAND = (sys.executable, "-m", "analytics.log")
LOCK = "shipper.lock"
LOCK_POLL_SECONDS = 1.0
RESTART_SECONDS = 1.0
STOP_POLL_SECONDS = 0.02


class ShipperSupervisor(Background):
    """Starts the shipper and restarts it, unless another process does so for the same folder.

    The shipper is a process of its own, so that a backlog of an hour does not slow requests. It
    ends when its standard input closes, and so with this process, even if that is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until the shipper has shipped the present segments, then stop it.

        Returns False if segments are left after the time-out; they stay on disk. Segments that
        other processes begin meanwhile are not waited for.
        """
        present = set(segments(self._folder))
        deadline = time.monotonic() + timeout_seconds
        while True:
            unshipped = present.intersection(segments(self._folder))
            if not unshipped or time.monotonic() > deadline:
                break
            await asyncio.sleep(STOP_POLL_SECONDS)
        await self.stop()
        if unshipped:
            logger.error(
                "stopped with %d segments in %s; the next shipper will ship them",
                len(unshipped),
                self._folder,
            )
        return not unshipped

    async def _run(self) -> None:
        lock = FileLock(self._folder / LOCK)
        while True:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                await asyncio.sleep(LOCK_POLL_SECONDS)
                continue
            try:
                while True:
                    await self._run_shipper()
                    await asyncio.sleep(RESTART_SECONDS)
            finally:
                lock.release()

    async def _run_shipper(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(*COMMAND, cwd=ROOT, stdin=PIPE)
        except OSError:
            logger.exception("the shipper cannot be started")
            return
        try:
            code = await process.wait()
            logger.error("the shipper ended with exit code %d and is started again", code)
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()  # the next shipper ships again what this one has not confirmed
                await process.wait()
            raise
