"""The spool: appending, confirming, limits and damage."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from analytics.log.open_segment import Durability, OpenSegment
from analytics.log.records import encode
from analytics.log.rejected import REJECTED, put_back, set_aside
from analytics.log.segments import (
    SEGMENT_BYTES,
    SpoolReader,
    count_predictions,
    remove_temporary,
    segments,
    size_bytes,
    try_lock,
)
from analytics.log.spool import Spool, SpoolFull, WhenFull
from tests.unit.analytics.spools import PLENTY, entry, texts
from tests.unit.fakes import counter

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


@pytest.mark.parametrize(("when_full", "written"), [("refuse", ["b"]), ("drop_oldest", ["a", "b"])])
async def test_line_of_a_request_that_was_refused_meanwhile_is_not_written(
    tmp_path: Path, when_full: WhenFull, written: list[str]
) -> None:
    """Its client sends it again; where none is refused, it was answered."""
    spool = Spool(tmp_path, max_bytes=PLENTY, durability="page_cache", when_full=when_full)
    refused, other = (asyncio.create_task(spool.append(encode(entry(text)))) for text in "ab")
    await asyncio.sleep(0)
    refused.cancel()
    spool.start()
    await other
    await spool.close()
    assert texts(SpoolReader(tmp_path).read(10).entries) == written


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


async def test_processes_that_share_a_full_folder_drop_no_more_than_they_have_to(
    tmp_path: Path, make_spool: MakeSpool
) -> None:
    before = counter("prediction_log_dropped_total")
    line = encode(entry("0" * 1_000))
    max_bytes, segment_bytes = 256 * len(line), 8 * len(line)
    spools = [
        make_spool(max_bytes=max_bytes, when_full="drop_oldest", segment_bytes=segment_bytes)
        for _ in range(3)
    ]
    largest = 0
    for number in range(300):
        async with asyncio.TaskGroup() as group:  # nothing is refused
            for spool in spools:
                group.create_task(spool.append(encode(entry(f"{number:04}" * 250))))
        largest = max(largest, size_bytes(segments(tmp_path)))
    remaining = len(SpoolReader(tmp_path).read(10_000).entries)
    assert counter("prediction_log_dropped_total") - before == 900 - remaining
    # A drop takes a whole segment of eight lines, and each process knows the others' a bit later.
    assert 256 - 3 * 8 <= remaining <= 256 + 3 * 8
    assert largest <= (256 + 3 * 8) * len(line)


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
async def test_what_others_wrote_counts_in_the_largest_size(
    tmp_path: Path, make_spool: MakeSpool, when_full: WhenFull
) -> None:
    line = encode(entry("0" * 1_000))
    first, second = (
        make_spool(max_bytes=128 * len(line), when_full=when_full, segment_bytes=4 * len(line))
        for _ in range(2)
    )
    refusals = 0
    for _ in range(300):
        for spool in (first, second):
            try:
                await spool.append(line)
            except SpoolFull:
                refusals += 1
    assert size_bytes(segments(tmp_path)) <= (128 + 2 * 4) * len(line)
    assert (refusals > 0) == (when_full == "refuse")


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
    deep = b'{"predictions":' * 9_000
    damaged = [b'{"predictions": 7}', b"\0\0", deep, b'{"predictions": "\xff"}', b"\xff"]
    for line in (encode(entry("one")), *(line + b"\n" for line in damaged), encode(entry("two"))):
        await spool.append(line)
    chunk = SpoolReader(tmp_path).read(1_000)
    assert texts(chunk.entries) == ["one", "two"]
    assert chunk.unreadable == damaged
    [segment] = segments(tmp_path)
    with segment.open("rb") as file:
        assert count_predictions(file) == 2


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


async def test_of_two_that_put_rejected_lines_back_the_second_finds_none(tmp_path: Path) -> None:
    set_aside(tmp_path, encode(entry()), "refused")
    with (tmp_path / "rejected.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = asyncio.create_task(asyncio.to_thread(put_back, tmp_path))
        await asyncio.sleep(0.1)  # it has looked, and waits
        (tmp_path / REJECTED).unlink()
    assert (await second).lines == 0


def test_segment_is_locked_although_processes_start_and_remove_temporary_files(
    tmp_path: Path,
) -> None:
    """Else the shipper takes it for complete, and what is written next is lost."""
    done = threading.Event()

    def start_again_and_again() -> None:
        while not done.is_set():
            remove_temporary(tmp_path)

    starting = [threading.Thread(target=start_again_and_again) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    made = 0
    try:
        for thread in starting:
            thread.start()
        for _ in range(10_000):
            with suppress(FileNotFoundError):
                segment = OpenSegment(tmp_path, "page_cache")
                made += 1
                with segment.path.open("rb") as file:
                    assert not try_lock(file)
                segment.close()
                segment.path.unlink()
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for thread in starting:
            thread.join()
    assert made > 1_000
