"""One shipper for each spool folder, also if the folder is deleted or cannot be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from analytics.log.shipper_supervisor import FolderLock, ShipperSupervisor
from tests.unit.fakes import counter
from tests.waiting import until


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
