"""Acknowledged lines are on disk, even if the process of the spool is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from analytics.log.open_segment import Durability
from analytics.log.records import Entry, encode, to_record
from analytics.log.rejected import REJECTED, put_back, set_aside
from analytics.log.segments import SEGMENT_BYTES, SpoolReader, segments, size_bytes
from analytics.log.spool import Spool, SpoolFull, WhenFull
from core.paths import ROOT
from tests.unit.fakes import counter, prediction
from tests.waiting import until

PLENTY = 1 << 30


def entry(text: str = "text") -> Entry:
    return Entry((to_record(prediction(text), "full"),))


def texts(entries: list[Entry]) -> list[str]:
    return [record.text for entry in entries for record in entry.predictions]


MakeSpool = Callable[..., Spool]


@pytest.fixture
async def make_spool(tmp_path: Path) -> AsyncIterator[MakeSpool]:
    made = []

    def make(
        *,
        max_bytes: int = PLENTY,
        durability: Durability = "page_cache",
        when_full: WhenFull = "refuse",
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Spool:
        spool = Spool(
            tmp_path,
            max_bytes=max_bytes,
            durability=durability,
            when_full=when_full,
            segment_bytes=segment_bytes,
        )
        spool.start()
        made.append(spool)
        return spool

    yield make
    for spool in made:
        await spool.close()


@pytest.mark.parametrize("durability", ["fsync", "page_cache"])
async def test_appended_lines_are_read_once_in_order(
    tmp_path: Path, make_spool: MakeSpool, durability: Durability
) -> None:
    spool, reader = make_spool(durability=durability), SpoolReader(tmp_path)
    for number in range(20):
        await spool.append(encode(entry(str(number))))
    chunk = reader.read(1_000)
    assert texts(chunk.entries) == [str(number) for number in range(20)]
    assert reader.read(1_000).entries == []
    await spool.append(encode(entry("later")))
    assert texts(reader.read(1_000).entries) == ["later"]


async def test_concurrent_appends_are_all_written(tmp_path: Path, make_spool: MakeSpool) -> None:
    spool = make_spool(durability="fsync")
    await asyncio.gather(*(spool.append(encode(entry(str(n)))) for n in range(1_000)))
    assert len(SpoolReader(tmp_path).read(10_000).entries) == 1_000


async def test_a_segment_is_deleted_once_it_is_complete_and_confirmed(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    spool, reader = make_spool(), SpoolReader(tmp_path)
    await spool.append(encode(entry()))
    chunk = reader.read(1_000)
    assert (len(chunk.entries), chunk.finished) == (1, [])
    reader.confirm(chunk)
    assert len(segments(tmp_path)) == 1  # more may follow in it
    await spool.close()
    reader.confirm(reader.read(1_000))
    assert segments(tmp_path) == []


async def test_an_idle_segment_is_completed_within_seconds(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    spool, reader = make_spool(), SpoolReader(tmp_path)
    await spool.append(encode(entry()))
    async with asyncio.timeout(10):
        while segments(tmp_path):
            reader.confirm(reader.read(1_000))
            await asyncio.sleep(0.01)


async def test_unconfirmed_lines_are_read_by_the_next_reader(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    spool = make_spool()
    await spool.append(encode(entry("acknowledged")))
    await spool.close()
    SpoolReader(tmp_path).read(1_000)
    assert texts(SpoolReader(tmp_path).read(1_000).entries) == ["acknowledged"]


async def test_two_spools_share_a_folder(tmp_path: Path, make_spool: MakeSpool) -> None:
    first, second = make_spool(), make_spool()
    for number in range(10):
        await (first, second)[number % 2].append(encode(entry(str(number))))
    assert len(segments(tmp_path)) == 2
    assert set(texts(SpoolReader(tmp_path).read(1_000).entries)) == {str(n) for n in range(10)}


async def test_a_full_spool_refuses_lines_until_segments_are_shipped(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    line = encode(entry("x" * 1_000))
    spool = make_spool(max_bytes=10 * len(line))
    for _ in range(10):
        await spool.append(line)
    with pytest.raises(SpoolFull):
        await spool.append(line)
    assert size_bytes(segments(tmp_path)) == 10 * len(line)
    reader = SpoolReader(tmp_path)
    async with asyncio.timeout(10):  # its segment is completed in a second
        while segments(tmp_path):
            reader.confirm(reader.read(1_000))
            await asyncio.sleep(0.01)
    await spool.append(line)


async def test_a_full_spool_drops_and_counts_the_oldest_lines_if_so_configured(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    before = counter("prediction_log_dropped_total")
    line = encode(entry("0" * 1_000))
    spool = make_spool(
        max_bytes=10 * len(line), when_full="drop_oldest", segment_bytes=3 * len(line)
    )
    (tmp_path / "00000000-0000-7000-8000-000000000000.ndjson").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "00000000-0000-7000-8000-000000000001.ndjson")
    for number in range(30):
        await spool.append(encode(entry(f"{number:04}" * 250)))
    remaining = [int(text[:4]) for text in texts(SpoolReader(tmp_path).read(1_000).entries)]
    assert remaining == list(range(30 - len(remaining), 30))
    assert 7 <= len(remaining) <= 10
    assert counter("prediction_log_dropped_total") - before == 30 - len(remaining)


async def test_a_torn_last_line_is_skipped(tmp_path: Path, make_spool: MakeSpool) -> None:
    spool = make_spool()
    await spool.append(encode(entry("whole")))
    await spool.close()
    [path] = segments(tmp_path)
    path.write_bytes(path.read_bytes() + encode(entry("torn"))[:-20])
    chunk = SpoolReader(tmp_path).read(1_000)
    assert (texts(chunk.entries), chunk.unreadable, chunk.finished) == (["whole"], [], [path])


async def test_an_unreadable_line_does_not_stop_the_others(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    spool = make_spool()
    for line in (encode(entry("one")), b'{"predictions": 7}\n', b"\0\0\n", encode(entry("two"))):
        await spool.append(line)
    chunk = SpoolReader(tmp_path).read(1_000)
    assert texts(chunk.entries) == ["one", "two"]
    assert chunk.unreadable == [b'{"predictions": 7}', b"\0\0"]


async def test_a_segment_of_unreadable_lines_can_be_dropped(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    line = encode(entry("0" * 1_000))
    spool = make_spool(max_bytes=3 * len(line), when_full="drop_oldest", segment_bytes=1)
    await spool.append(b"nonsense" * 200 + b"\n")
    for _ in range(5):
        await spool.append(line)
    assert len(SpoolReader(tmp_path).read(1_000).entries) in (2, 3)


async def test_a_temporary_file_of_a_dead_process_is_removed_at_start(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    temporary = tmp_path / "0190.new"
    temporary.touch()
    spool = make_spool()
    assert not temporary.exists()
    await spool.append(encode(entry()))
    assert len(segments(tmp_path)) == 1


async def test_only_the_owner_may_read_the_spool(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, max_bytes=PLENTY, durability="page_cache", when_full="refuse")
    spool.start()
    await spool.append(encode(entry()))
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0]
    await spool.close()


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


async def test_rejected_lines_count_in_the_largest_size(tmp_path: Path) -> None:
    line = encode(entry("x" * 1_000))
    set_aside(tmp_path, line * 9, "refused")
    spool = Spool(tmp_path, max_bytes=10 * len(line), durability="fsync", when_full="refuse")
    spool.start()
    with pytest.raises(SpoolFull):
        await spool.append(line)
    assert put_back(tmp_path).unreadable == 1  # nine lines are no line
    (tmp_path / REJECTED).unlink()
    await spool.append(line)
    await spool.close()


APPEND_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from analytics.log.records import encode
from analytics.log.spool import Spool
from tests.unit.analytics.test_spool import entry

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
from tests.unit.analytics.test_spool import entry, texts

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
