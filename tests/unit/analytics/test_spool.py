"""Acknowledged lines are on disk, even if the process of the spool is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import SpoolReader, segments, size_bytes
from analytics.log.spool import SEGMENT_BYTES, Durability, Spool, SpoolFull, WhenFull
from core.paths import ROOT
from tests.unit.fakes import counter, prediction

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
