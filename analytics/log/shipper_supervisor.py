"""Keeps one shipper process running for each spool folder."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from asyncio.subprocess import Process
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from analytics.log.seal import FILE as SEAL_FILE
from analytics.log.segments import is_at, segments, try_lock
from analytics.log.unshipped import Unshipped
from core import metrics
from core.background import Background
from core.paths import ROOT
from core.private_files import open_private, open_regular
from core.silence import SILENT_SECONDS, STARTING_SECONDS, Pulse
from core.standby import Standby, take_standby

logger = logging.getLogger("bentoml.sentiment.log")

COMMAND = (sys.executable, "-m", "analytics.log")
LOCK = "shipper.lock"
LOCK_POLL_SECONDS = 1.0
# The process with the lock notices that the folder is gone before another process asks again.
LOCK_CHECK_SECONDS = 0.2
RESTART_SECONDS = 1.0
STOP_POLL_SECONDS = 0.02
# The shipper writes something to its standard input, a socket, once in so many seconds.
BEAT_SECONDS = 1.0


class ShipperSupervisor(Background):
    """Starts the shipper and restarts it, unless another process does so for the same folder.

    The shipper is a process of its own, so that a backlog of an hour does not slow requests. It
    ends when its standard input closes, and so with this process, even if that is killed. One that
    hangs is killed.
    """

    def __init__(self, folder: Path, *, has_sinks: bool = False) -> None:
        self._folder = folder
        self._has_sinks = has_sinks
        self._process: Process | Standby | None = None
        self._end: socket.socket | None = None
        self._is_draining = False

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
        if self._has_sinks:
            await self._end_process(deadline - time.monotonic())
        await self.stop()
        if unshipped:
            logger.error(
                "stopped with %d predictions left in %s: the next service with this folder ships "
                "them, or `sentiment log ship %s`; whoever moves it has to move %s too",
                await asyncio.to_thread(Unshipped(self._folder).count),
                self._folder,
                self._folder,
                self._folder.parent / SEAL_FILE,
            )
        return not unshipped

    async def _end_process(self, timeout_seconds: float) -> None:
        """Let the shipper end by itself, which hands on what waits for sinks."""
        self._is_draining = True
        if self._process is not None and self._end is not None and timeout_seconds > 0:
            self._end.shutdown(socket.SHUT_WR)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout_seconds)

    async def _run(self) -> None:
        with closing(FolderLock(self._folder / LOCK)) as lock:
            while True:
                # In a thread: a disk that stands still keeps whoever makes a folder or a file.
                if await asyncio.to_thread(lock.acquire):
                    await self._run_shipper(lock)
                    await asyncio.sleep(RESTART_SECONDS)
                else:
                    await asyncio.sleep(LOCK_POLL_SECONDS)

    async def _run_shipper(self, lock: FolderLock) -> None:
        """Run the shipper until it ends, or until another process has the lock."""
        process, end = await _started()
        self._process, self._end = process, end
        # A standby has imported everything. It may have been stopped while it waited.
        starting_seconds = SILENT_SECONDS if isinstance(process, Standby) else STARTING_SECONDS
        heart = _Heart(Pulse(process.pid, starting_seconds=starting_seconds), end)
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                if not await asyncio.to_thread(lock.acquire):
                    logger.error("%s was deleted; another process ships the spool", self._folder)
                    return
                if heart.has_stopped():
                    logger.error("the shipper (process %d) hangs and is started again", process.pid)
                    metrics.background_failures.labels("ShipperProcess").inc()
                    return
                await asyncio.wait({ended}, timeout=LOCK_CHECK_SECONDS)
            if self._is_draining:
                await asyncio.Event().wait()  # until `stop`
            logger.error("the shipper ended with exit code %d and is started again", ended.result())
            metrics.background_failures.labels("ShipperProcess").inc()
        finally:
            self._process = self._end = None
            if process.returncode is None:
                process.kill()  # the next shipper ships again what this one has not confirmed
            await ended
            end.close()


async def _started() -> tuple[Process | Standby, socket.socket]:
    """A shipper, and the socket whose other end is its standard input."""
    if (standby := take_standby()) is not None:
        return standby, standby.end
    end, stdin = socket.socketpair()
    with stdin:
        try:
            process = await asyncio.create_subprocess_exec(*COMMAND, cwd=ROOT, stdin=stdin.fileno())
        except BaseException:
            end.close()
            raise
    return process, end


class _Heart:
    """Tells a shipper that hangs from one that is busy, or waits for a core."""

    def __init__(self, pulse: Pulse, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._pulse = pulse
        self._looked_at = time.monotonic()

    def has_stopped(self) -> bool:
        """Whether it has been silent for too long."""
        elapsed = time.monotonic() - self._looked_at
        if elapsed < BEAT_SECONDS:
            return False
        self._looked_at += elapsed
        has_beaten = False
        with suppress(OSError):
            has_beaten = bool(self._end.recv(1_024))
        self._pulse.add(elapsed, has_beaten=has_beaten)
        return self._pulse.is_over


def is_shipped(folder: Path) -> bool:
    """Whether a running service ships the spool."""
    try:
        with open(folder / LOCK, "rb", opener=open_regular) as file:
            return not try_lock(file)
    except OSError:
        return False


class FolderLock:
    """A lock on a file in the spool folder; the folder may be deleted and made again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._is_closed = False

    def acquire(self) -> bool:
        """Whether this process has the lock, perhaps since an earlier call.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._file is not None and is_at(self._file, self._path):
            return True
        self._release()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(self._path, "ab", opener=open_private)  # noqa: SIM115  held until `close`
        if try_lock(file) and is_at(file, self._path):
            self._file = file
            if self._is_closed:
                self._release()
            return True
        file.close()
        return False

    def close(self) -> None:
        """Release the lock, also if another thread is about to get it."""
        self._is_closed = True
        self._release()

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
