"""A disk that stands still, as at a snapshot, stops no event loop. Only root can mount one."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from analytics.log.prediction_log import PredictionLog
from analytics.log.seal import SpoolSeal
from analytics.log.shipper_supervisor import LOCK, FolderLock, ShipperSupervisor
from analytics.log.spool import Spool, WhenFull
from core.errors import LogUnavailable
from tests.integration.predictions import make_prediction
from tests.waiting import until

FROZEN_SECONDS = 4.0
ANSWER_SECONDS = 1.0
DISK_BYTES = 32 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """By another thread it goes on: this one may wait for the disk."""
    goes_on = threading.Timer(FROZEN_SECONDS, subprocess.run, [["fsfreeze", "--unfreeze", disk]])
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    goes_on.start()
    try:
        yield
    finally:
        goes_on.join()


async def longest_pause_seconds(seconds: float) -> float:
    """The longest time between two turns of the event loop."""
    longest, end = 0.0, time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(0.05)
        longest = max(longest, time.monotonic() - begun)
    return longest


async def test_process_that_waits_for_the_lock_of_a_spool_goes_on(disk: Path) -> None:
    spool = disk / "spool"
    with closing(FolderLock(spool / LOCK)) as lock:
        assert lock.acquire()
        supervisor = ShipperSupervisor(spool)
        supervisor.start()
        with frozen(disk):
            assert await longest_pause_seconds(FROZEN_SECONDS) < FROZEN_SECONDS / 2
        await supervisor.stop()


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
async def test_log_on_a_disk_that_stands_still_says_so_and_goes_on(
    disk: Path, when_full: WhenFull
) -> None:
    spool = Spool(disk / "spool", max_bytes=1 << 20, durability="fsync", when_full=when_full)
    spool.start()
    seal = SpoolSeal(disk / "spool")
    log = PredictionLog(
        spool, seal, text_storage="hash", when_full=when_full, answer_seconds=ANSWER_SECONDS
    )
    log.start()
    await log.record([make_prediction()])
    is_refused = when_full == "refuse"
    with frozen(disk):
        with pytest.raises(LogUnavailable) if is_refused else nullcontext():
            await log.record([make_prediction()])
        begun = time.monotonic()
        assert log.refusing == is_refused
        if not is_refused:
            await log.record([make_prediction()])
        assert time.monotonic() - begun < ANSWER_SECONDS
        assert await longest_pause_seconds(1.0) < 0.5
    await until(lambda: not log.refusing)
    await log.record([make_prediction()])
    await log.stop()
    await spool.close()
