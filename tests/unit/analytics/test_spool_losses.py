"""A spool whose folder is deleted, whose process is killed, or whose disk is full."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from analytics.log.open_segment import Durability
from analytics.log.records import encode
from analytics.log.segments import SpoolReader, segments
from analytics.log.spool import Spool, SpoolFull
from core.paths import ROOT
from tests.unit.analytics.spools import PLENTY, entry, texts
from tests.waiting import until


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def delete_content(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize("lose", [delete, delete_content, move])
async def test_a_deleted_folder_is_made_again_with_every_acknowledged_line(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    folder = tmp_path / "spool"
    line = encode(entry("x" * 1_000))
    spool = Spool(
        folder,
        max_bytes=PLENTY,
        durability="page_cache",
        when_full="refuse",
        segment_bytes=3 * len(line),
    )
    spool.start()
    for number in range(10):
        await spool.append(encode(entry(f"{number:04}" * 250)))
    assert len(segments(folder)) == 4
    lose(folder)
    for number in range(10, 13):
        await spool.append(encode(entry(f"{number:04}" * 250)))
    await spool.close()
    found = {int(text[:4]) for text in texts(SpoolReader(folder).read(1_000).entries)}
    assert found == set(range(13))


async def test_an_idle_spool_writes_the_lines_of_a_deleted_folder_again(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, max_bytes=PLENTY, durability="fsync", when_full="refuse")
    spool.start()
    await spool.append(encode(entry("acknowledged")))
    shutil.rmtree(folder)
    await until(lambda: texts(SpoolReader(folder).read(1_000).entries) == ["acknowledged"])
    assert folder.stat().st_mode & 0o077 == 0
    await spool.close()


async def test_folder_that_is_deleted_under_concurrent_appends_loses_no_acknowledged_line(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "spool"
    spool = Spool(
        folder, max_bytes=PLENTY, durability="page_cache", when_full="refuse", segment_bytes=10_000
    )
    spool.start()
    acknowledged: list[str] = []

    async def client(number: int) -> None:
        for count in range(200):
            with suppress(OSError):  # refused, so the client knows
                await spool.append(encode(entry(f"{number}-{count}")))
                acknowledged.append(f"{number}-{count}")

    clients = asyncio.gather(*(client(number) for number in range(4)))
    while not clients.done():
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await asyncio.sleep(0.02)
    await clients
    await spool.close()
    assert set(acknowledged) <= set(texts(SpoolReader(folder).read(10_000).entries))


async def test_shipped_segments_are_not_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(
        folder, max_bytes=PLENTY, durability="page_cache", when_full="refuse", segment_bytes=1
    )
    spool.start()
    reader = SpoolReader(folder)
    for number in range(5):
        await spool.append(encode(entry(str(number))))
    while segments(folder):  # the last one is completed in a moment
        reader.confirm(reader.read(1_000))
        await asyncio.sleep(0.01)
    await until(lambda: not open_files(folder))
    shutil.rmtree(folder)
    await spool.append(encode(entry("new")))
    await spool.close()
    assert texts(SpoolReader(folder).read(1_000).entries) == ["new"]


def open_files(folder: Path) -> list[str]:
    """The segments of the folder that this process has open, deleted ones too."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this very loop
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(folder)) and ".ndjson" in path]


async def test_check_finds_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, max_bytes=10_000, durability="fsync", when_full="refuse")
    spool.start()
    await spool.check(5_000, sync=True)
    assert list(folder.iterdir()) == []
    with pytest.raises(SpoolFull):
        await spool.check(20_000, sync=False)
    shutil.rmtree(folder)
    await spool.check(5_000, sync=True)
    assert folder.is_dir()
    shutil.rmtree(folder)
    folder.touch()  # even root cannot make a folder of this name
    with pytest.raises(FileExistsError):
        await spool.check(5_000, sync=False)
    folder.unlink()
    await spool.check(5_000, sync=False)
    await spool.close()


APPEND_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from analytics.log.records import encode
from analytics.log.spool import Spool
from tests.unit.analytics.spools import entry

async def main():
    spool = Spool(
        Path(sys.argv[1]), max_bytes=1 << 30, durability=sys.argv[2], when_full="refuse"
    )
    spool.start()
    async def client(number):
        for count in range(10**9):
            text = f"{number}-{count}"
            await spool.append(encode(entry(text)))
            print(text, flush=True)
    await asyncio.gather(*(client(number) for number in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["fsync", "page_cache"])
def test_a_killed_process_leaves_every_acknowledged_line(
    tmp_path: Path, durability: Durability
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path), durability],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    reader = SpoolReader(tmp_path)
    chunk = reader.read(10**9)
    assert len(chunk.finished) == len(segments(tmp_path))  # the locks of the dead process are gone
    assert set(acknowledged) <= set(texts(chunk.entries))
    reader.confirm(chunk)
    assert segments(tmp_path) == []


FILL_THE_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from analytics.log.records import encode
from analytics.log.segments import SpoolReader
from analytics.log.spool import Spool
from tests.unit.analytics.spools import entry, texts

# A file may not grow past 10,000 bytes: a longer write is cut short, then fails.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

async def main():
    folder = Path(sys.argv[1])
    spool = Spool(folder, max_bytes=1 << 30, durability="fsync", when_full="refuse")
    spool.start()
    accepted, refused = [], []
    for number in range(30):
        text = f"{number:04}" * 250
        try:
            await spool.append(encode(entry(text)))
            accepted.append(text)
        except OSError:
            refused.append(text)
    await spool.close()
    chunk = SpoolReader(folder).read(10**9)
    assert accepted and refused, (len(accepted), len(refused))
    assert texts(chunk.entries) == accepted
    assert not chunk.unreadable

asyncio.run(main())
"""


def test_a_write_that_the_disk_cuts_short_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)], cwd=ROOT, check=True, timeout=60
    )
