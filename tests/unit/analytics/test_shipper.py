"""The shipper gives each spooled entry to the writer once, even if the writer fails."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from analytics.log.records import Entry, encode, to_record
from analytics.log.rejected import (
    REJECTED,
    has_rejected_lately,
    rejected_bytes,
    set_aside,
)
from analytics.log.segments import (
    OVERDUE_SECONDS,
    SEGMENT_BYTES,
    begun_at,
    is_overdue,
    new_segment,
    remove_temporary,
    segments,
)
from analytics.log.shipper import MAX_BATCH_BYTES, MAX_BATCH_PREDICTIONS, Shipper
from analytics.log.spool import Spool
from analytics.log.unshipped import spool_id
from core.types import Prediction
from tests.unit.fakes import FakeWriter, counter
from tests.unit.fakes import prediction as make_prediction
from tests.waiting import until


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path, max_bytes=1 << 30, durability="page_cache", when_full="refuse")
    spool.start()
    yield spool
    await spool.close()


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


def record(text: str = "text") -> Prediction:
    return to_record(make_prediction(text), "full")


async def ship(folder: Path, writer: FakeWriter) -> None:
    """Ship every segment of the folder, then end."""
    stopping = asyncio.Event()
    stopping.set()
    async with asyncio.timeout(20):
        await Shipper(folder, writer, poll_seconds=0.01).run(stopping)


async def test_a_closed_spool_is_shipped_whole_and_deleted(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    made = [record(str(number)) for number in range(100)]
    for prediction in made:
        await spool.append(encode(Entry((prediction,))))
    await spool.close()
    before = counter("prediction_log_stored_total")
    await ship(tmp_path, writer)
    assert (writer.taken, writer.batches) == (made, 1)
    assert segments(tmp_path) == []
    assert counter("prediction_log_stored_total") - before == 100


@pytest.mark.parametrize("name", ["copy of a segment", "cafecafe-cafe-4aaa-8aaa-cafecafecafe"])
async def test_segment_with_a_name_of_somebody_else_is_shipped(
    tmp_path: Path, spool: Spool, writer: FakeWriter, name: str
) -> None:
    made = record("a")
    await spool.append(encode(Entry((made,))))
    await spool.close()
    [segment] = segments(tmp_path)
    copied = segment.rename(tmp_path / f"{name}{segment.suffix}")
    assert timedelta() <= datetime.now(UTC) - begun_at(copied) < timedelta(minutes=1)
    await ship(tmp_path, writer)
    assert (writer.taken, segments(tmp_path)) == ([made], [])


def has_taken_more(writer: FakeWriter, than: int) -> bool:
    return len(writer.taken) > than


async def test_lines_that_a_killed_shipper_had_stored_are_counted_once(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    made = [record(str(number)) for number in range(10)]
    for prediction in made:
        await spool.append(encode(Entry((prediction,))))
    before, repeated = (counter(f"prediction_log_{name}_total") for name in ("stored", "repeated"))
    # Each reads the segment from its beginning, and ends before it may delete it.
    for _ in range(3):
        shipping = asyncio.create_task(
            Shipper(tmp_path, writer, poll_seconds=0.01).run(asyncio.Event())
        )
        await until(partial(has_taken_more, writer, len(writer.taken)))
        shipping.cancel()
        await asyncio.gather(shipping, return_exceptions=True)
    assert len(writer.taken) == 30
    assert counter("prediction_log_stored_total") - before == 10
    assert counter("prediction_log_repeated_total") - repeated == 20


async def test_a_running_shipper_ships_what_the_spool_appends(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    stopping = asyncio.Event()
    shipping = asyncio.create_task(Shipper(tmp_path, writer, poll_seconds=0.01).run(stopping))
    made = []
    for number in range(200):
        made.append(record(str(number)))
        await spool.append(encode(Entry((made[-1],))))
    await until(lambda: len(writer.taken) == len(made))
    stopping.set()
    await shipping
    assert writer.taken == made


async def test_entries_that_come_one_by_one_share_a_transaction_each_interval(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    stopping = asyncio.Event()
    shipping = asyncio.create_task(Shipper(tmp_path, writer, poll_seconds=0.2).run(stopping))
    began = time.monotonic()
    for number in range(100):
        await spool.append(encode(Entry((record(str(number)),))))
        await asyncio.sleep(0.005)
    await until(lambda: len(writer.taken) == 100)
    seconds = time.monotonic() - began
    stopping.set()
    await shipping
    assert writer.batches <= seconds / 0.2 + 1


async def test_entries_are_shipped_after_an_outage(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    # The last is a fault of our own code: it must not lose predictions either.
    writer.errors = [OSError("down"), TimeoutError("still down"), TypeError("connect")]
    await spool.append(encode(Entry((record("kept"),))))
    await spool.close()
    await ship(tmp_path, writer)
    assert [prediction.text for prediction in writer.taken] == ["kept"]


async def test_gauges_of_the_spool_grow_while_postgresql_is_away(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    writer.errors = [OSError("down")] * 1_000
    await spool.append(encode(Entry((record("first"),))))
    shipping = asyncio.create_task(
        Shipper(tmp_path, writer, poll_seconds=0.01).run(asyncio.Event())
    )
    await until(lambda: len(writer.errors) < 1_000)
    await spool.append(encode(Entry((record("second"),))))
    there = sum(path.stat().st_size for path in segments(tmp_path))
    await until(lambda: counter("prediction_log_spool_bytes") == there)
    await until(lambda: counter("prediction_log_spool_age_seconds") > 1)
    shipping.cancel()
    await asyncio.wait([shipping])


async def test_predictions_count_as_overdue_once_the_oldest_has_waited_too_long(
    tmp_path: Path, writer: FakeWriter
) -> None:
    name = spool_id(tmp_path)

    def overdue() -> float:
        return counter("prediction_log_overdue_predictions", spool=name)

    now = datetime.now(UTC)
    new_segment(tmp_path, now).write_bytes(encode(Entry((record("new"),))))
    writer.errors = [OSError("down")] * 1_000
    shipping = asyncio.create_task(
        Shipper(tmp_path, writer, poll_seconds=0.01).run(asyncio.Event())
    )
    await until(lambda: len(writer.errors) < 1_000)
    assert overdue() == 0
    assert not is_overdue(tmp_path)
    old = new_segment(tmp_path, now - timedelta(seconds=OVERDUE_SECONDS + 1))
    old.write_bytes(encode(Entry((record("old"), record("old, too")))))
    await until(lambda: overdue() == 3)
    assert is_overdue(tmp_path)
    writer.errors = []
    await until(lambda: len(writer.taken) == 3)
    await until(lambda: overdue() == 0)
    assert not is_overdue(tmp_path)
    shipping.cancel()
    await asyncio.wait([shipping])


async def test_refused_and_unreadable_lines_are_set_aside_and_the_others_shipped(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    made = [record(str(number)) for number in range(50)]
    writer.refused = {made[7].id, made[31].id}
    for prediction in made:
        await spool.append(encode(Entry((prediction,))))
    await spool.append(b"nonsense\n")
    await spool.close()
    before = counter("prediction_log_rejected_total")
    await ship(tmp_path, writer)
    assert [prediction.text for prediction in writer.taken] == [
        prediction.text for prediction in made if prediction.id not in writer.refused
    ]
    assert counter("prediction_log_rejected_total") - before == 3
    rejected = [json.loads(line) for line in (tmp_path / REJECTED).read_text().splitlines()]
    assert rejected[0]["line"] == "nonsense"
    entries = [json.loads(row["line"]) for row in rejected[1:]]
    assert [entry["predictions"][0]["text"] for entry in entries] == ["7", "31"]
    assert "told to refuse" in rejected[1]["reason"]


async def test_lines_stay_while_the_writer_stores_nothing_at_all(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    writer.stores_nothing = True
    for number in range(50):
        await spool.append(encode(Entry((record(str(number)),))))
    await spool.close()
    shipping = asyncio.create_task(ship(tmp_path, writer))
    await until(lambda: writer.checks > 1)
    assert segments(tmp_path)
    writer.stores_nothing = False
    await shipping
    assert [prediction.text for prediction in writer.taken] == [str(n) for n in range(50)]
    assert not (tmp_path / REJECTED).exists()


async def test_line_that_cannot_be_set_aside_stays_in_the_spool(
    tmp_path: Path, spool: Spool, writer: FakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / REJECTED).mkdir()  # no file can be written here, not even by root
    await spool.append(b"nonsense\n")
    await spool.append(encode(Entry((record("good"),))))
    await spool.close()
    before = counter("prediction_log_rejected_total")
    shipping = asyncio.create_task(ship(tmp_path, writer))
    await until(lambda: "cannot be set aside, so the spool is not shipped" in caplog.text)
    assert segments(tmp_path)
    assert counter("prediction_log_rejected_total") == before
    (tmp_path / REJECTED).rmdir()
    await shipping
    assert counter("prediction_log_rejected_total") - before == 1
    assert [prediction.text for prediction in writer.taken] == ["good"]


async def test_rejected_lines_are_never_dropped(tmp_path: Path) -> None:
    line = b"x" * (1 << 20)
    for number in range(70):
        set_aside(tmp_path, line, str(number))
    with (tmp_path / REJECTED).open("rb") as rows:
        assert sum(1 for _ in rows) == 70
    assert has_rejected_lately(tmp_path)
    assert rejected_bytes(tmp_path) > 70 << 20


async def test_a_torn_rejected_line_does_not_join_the_next(tmp_path: Path) -> None:
    (tmp_path / REJECTED).write_bytes(b'{"line": "cut')
    set_aside(tmp_path, b"whole", "reason")
    rows = (tmp_path / REJECTED).read_bytes().splitlines()
    assert rows[0] == b'{"line": "cut'
    assert json.loads(rows[1])["line"] == "whole"


def _make_folder(path: Path, _: Path) -> None:
    path.mkdir()


def _make_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _make_link_to_endless_file(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def _make_link_to_nothing(path: Path, target: Path) -> None:
    path.symlink_to(target / "nothing")


def _make_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _make_socket(path: Path, _: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".ndjson", ".new"])
@pytest.mark.parametrize(
    "make",
    [
        _make_folder,
        _make_link,
        _make_link_to_endless_file,
        _make_link_to_nothing,
        _make_pipe,
        _make_socket,
    ],
)
async def test_segment_that_is_no_regular_file_stops_no_other_and_is_not_followed(
    tmp_path: Path,
    writer: FakeWriter,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path, Path], None],
    suffix: str,
) -> None:
    target = tmp_path / "target"
    target.write_text("precious\n")
    odd = tmp_path / f"00000000-0000-7000-8000-000000000000{suffix}"
    make(odd, target)
    good = tmp_path / "00000000-0000-7000-8000-000000000001.ndjson"
    good.write_bytes(encode(Entry((record("good"),))))
    remove_temporary(tmp_path)

    await ship(tmp_path, writer)

    assert [prediction.text for prediction in writer.taken] == ["good"]
    assert target.read_text() == "precious\n"
    assert odd.stat(follow_symlinks=False)
    named = caplog.text.count("a segment cannot be read and waits")
    assert named == (suffix == ".ndjson")


async def test_a_backlog_is_shipped_in_bounded_batches(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    line = encode(Entry((record(),) * 1_000))
    for _ in range(50):
        await spool.append(line)
    await spool.close()
    await ship(tmp_path, writer)
    assert len(writer.taken) == 50_000
    assert writer.batches >= 50_000 // (2 * MAX_BATCH_PREDICTIONS)


async def test_a_backlog_of_long_texts_is_shipped_in_batches_of_bounded_size(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    line = encode(Entry((record("\N{PILE OF POO}" * 5_000),) * 100))
    for _ in range(30):
        await spool.append(line)
    await spool.close()
    await ship(tmp_path, writer)
    assert len(writer.taken) == 3_000
    assert writer.batches >= 30 * len(line) / (MAX_BATCH_BYTES + SEGMENT_BYTES + len(line))


@pytest.mark.parametrize("of_entry", [1, 100])
@pytest.mark.parametrize("most", [1, 7, 150])
async def test_backlog_that_is_too_large_for_one_time_out_is_shipped_in_smaller_batches(
    tmp_path: Path,
    spool: Spool,
    writer: FakeWriter,
    caplog: pytest.LogCaptureFixture,
    *,
    most: int,
    of_entry: int,
) -> None:
    for _ in range(1_000 // of_entry):
        await spool.append(encode(Entry(tuple(record() for _ in range(of_entry)))))
    await spool.close()
    writer.most = most
    await ship(tmp_path, writer)
    assert len(writer.taken) == len({prediction.id for prediction in writer.taken}) == 1_000
    assert "smaller batches follow: no answer in time" in caplog.text


async def test_batches_grow_again_once_postgresql_takes_them(
    tmp_path: Path, spool: Spool, writer: FakeWriter
) -> None:
    for _ in range(4_000):
        await spool.append(encode(Entry((record(),))))
    await spool.close()
    writer.most, writer.slow_until = 10, 500
    await ship(tmp_path, writer)
    assert len(writer.taken) == 4_000
    assert max(writer.tried) > 500
    # Nearly all that is tried is taken: a size that was too large is not tried at once again.
    assert len(writer.tried) < 1.2 * (500 / 6) + 60
