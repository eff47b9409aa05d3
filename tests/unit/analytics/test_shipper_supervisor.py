"""One shipper for each spool folder, also if the folder is deleted or cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from analytics.log.shipper_supervisor import COMMAND, FolderLock, ShipperSupervisor
from core.paths import ROOT
from tests.processes import has_ended
from tests.unit.fakes import counter
from tests.waiting import until, wait_until


def test_lock_is_held_by_one_process(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire()
    first.close()
    assert second.acquire()
    second.close()


def test_holder_takes_the_lock_of_a_folder_that_was_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    first, second = FolderLock(folder / "lock"), FolderLock(folder / "lock")
    assert first.acquire()
    shutil.rmtree(folder)
    assert first.acquire()
    assert not second.acquire()
    first.close()


def test_holder_learns_that_another_process_was_faster(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    first, second = FolderLock(folder / "lock"), FolderLock(folder / "lock")
    assert first.acquire()
    shutil.rmtree(folder)
    assert second.acquire()
    assert not first.acquire()
    second.close()
    assert first.acquire()
    first.close()


async def test_lock_that_cannot_be_opened_is_counted_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.touch()  # no folder can be made here, not even by root
    before = counter("background_failures_total", task="ShipperSupervisor")
    supervisor = ShipperSupervisor(folder)
    supervisor.start()
    await until(lambda: counter("background_failures_total", task="ShipperSupervisor") > before + 2)
    await supervisor.stop()


# Stops the process that has it within its imports.
STOPS = """
import os, signal, sys

def audit(event, arguments):
    if event == "import" and arguments[0] == "analytics.drift_watch":
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(audit)
"""
PARENT = """
import subprocess, sys
print(subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).pid, flush=True)
input()
"""


def test_shipper_that_is_stopped_within_its_imports_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPS)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *COMMAND],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout
        shipper = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: shipper.status() == psutil.STATUS_STOPPED)
        parent.kill()
        wait_until(lambda: has_ended(shipper))


# An API process whose standby was stopped while it waited to be needed.
SUPERVISED = """
import asyncio, os, signal, sys
from pathlib import Path
from core.standby import _waiting, fork_standby, wait_until_taken
if fork_standby():
    print(os.getpid(), flush=True)
    wait_until_taken()
    signal.pause()
input()
from analytics.log.shipper_supervisor import ShipperSupervisor

async def supervise():
    supervisor = ShipperSupervisor(Path(sys.argv[1]))
    supervisor.start()
    while (process := supervisor._process) is None or process.pid == standby:
        await asyncio.sleep(0.05)
    await supervisor.stop()

standby = _waiting[0].pid
asyncio.run(asyncio.wait_for(supervise(), 30))
"""


def test_standby_that_was_stopped_before_it_was_needed_is_replaced(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, tmp_path],
        cwd=ROOT,
        env={**os.environ, "DATA_FOLDER": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        standby = psutil.Process(int(process.stdout.readline()))
        standby.suspend()
        _, errors = process.communicate(b"\n", timeout=60)
        assert (process.returncode, has_ended(standby)) == (0, True), errors
    assert b"hangs and is started again" in errors
