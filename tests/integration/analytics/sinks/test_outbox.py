"""An id is in the outbox once if its transaction was committed, whatever becomes of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from analytics.hash_keys import HashKeys
from analytics.log.records import to_record
from analytics.log.sinks.cursor import Batch, Cursor
from analytics.log.sinks.outbox import Found, Position
from analytics.log.sinks.parquet import ParquetSink
from analytics.log.sinks.rows import stored_characters
from analytics.log.writer import LogWriter, store
from analytics.privacy.erase import Actor, erase
from analytics.privacy.selection import Selector
from core.types import Prediction
from core.uuid7 import new_id
from tests.full_disk import no_larger_files
from tests.integration.analytics.sinks.conftest import SinkLog, count, parquet_ids
from tests.integration.analytics.sinks.receiver import receiver
from tests.integration.analytics.sinks.test_events import sink as events_sink
from tests.integration.predictions import make_prediction
from tests.waiting import until


def parquet(folder: Path) -> ParquetSink:
    return ParquetSink(str(folder / "parquet"), batch_seconds=300)


async def handed(log: SinkLog, folder: Path) -> list[str]:
    await log.finish(log.delivery(parquet(folder)))
    return sorted(parquet_ids(folder / "parquet"))


async def test_a_prediction_that_two_shippers_store_is_handed_on_by_the_first(
    log: SinkLog, tmp_path: Path
) -> None:
    """As a repeated request whose tries went to two replicas."""
    log.delivery(parquet(tmp_path))
    other = SinkLog(log.engine, log.writing, tmp_path / "other")
    other.delivery(parquet(tmp_path))
    same = [make_prediction(str(n)) for n in range(5)]
    first = await log.store(predictions=same[:3])
    second = await other.store(predictions=same)
    assert await handed(log, tmp_path) == sorted(first)
    assert await handed(other, tmp_path) == sorted(second)
    other.outbox.close()


async def test_predictions_of_a_write_that_was_rolled_back_are_handed_on_by_the_next(
    log: SinkLog, tmp_path: Path
) -> None:
    delivery = log.delivery(parquet(tmp_path))
    made = [to_record(make_prediction(str(n)), "hash") for n in range(3)]
    await rolled_back(log, made)
    assert delivery.waiting == 3
    await log.writer.write(made)
    await log.writer.write(made)
    await log.finish(delivery)
    assert parquet_ids(tmp_path / "parquet") == [str(each.id) for each in made]
    assert delivery.waiting == 0


async def rolled_back(log: SinkLog, made: list[Prediction]) -> None:
    """As a commit that does not reach PostgreSQL."""
    writer = LogWriter(log.writing)
    keys = writer._keys
    await keys.resolve(made)
    async with log.writing.connect() as connection:
        await store(connection, keys, made)
        await log.outbox.append(*await stored_characters(connection, made))
        await connection.rollback()


async def test_what_is_erased_while_it_waits_is_not_handed_on(log: SinkLog, tmp_path: Path) -> None:
    gone = {sink: count("gone", sink) for sink in ("events", "parquet")}
    with receiver() as received:
        deliveries = log.delivery(parquet(tmp_path)), log.delivery(events_sink(received.url))
        [one] = await log.store(predictions=[make_prediction("erase me")])
        [other] = await log.store(predictions=[make_prediction("keep me")])
        actor = Actor("ana", "here", "ticket")
        await erase(log.engine, HashKeys(), Selector("text", "erase me"), [], actor)
        await log.finish(*deliveries)
    assert received.ids == parquet_ids(tmp_path / "parquet") == [other]
    assert one != other
    assert {sink: count("gone", sink) - before for sink, before in gone.items()} == {
        "events": 1,
        "parquet": 1,
    }


async def test_nothing_of_a_person_waits_in_the_outbox(log: SinkLog) -> None:
    log.delivery(events_sink("http://127.0.0.1:9"))
    made = make_prediction("A secret.")
    await log.store(predictions=[made], text_storage="full")
    [file] = log.outbox.folder.glob("*.ids")
    assert b"secret" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


async def test_a_new_sink_begins_with_what_is_stored_from_then_on(
    log: SinkLog, tmp_path: Path
) -> None:
    await log.store(3)
    delivery = log.delivery(parquet(tmp_path))
    later = await log.store(2)
    await log.finish(delivery)
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted(later)


async def test_files_go_when_all_sinks_are_past_them(log: SinkLog, tmp_path: Path) -> None:
    log.restart(file_bytes=1)
    slow, fast = log.delivery(events_sink("http://127.0.0.1:9")), log.delivery(parquet(tmp_path))
    ids = [id_ for _ in range(4) for id_ in await log.store(2)]
    await log.finish(fast)
    log.outbox.forget([slow.cursor.needed, fast.cursor.needed])
    assert len(list(log.outbox.folder.glob("*.ids"))) == 4
    log.outbox.forget([fast.cursor.needed])
    assert len(list(log.outbox.folder.glob("*.ids"))) == 1
    ids += await log.store(2)
    await log.finish(fast)
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted(ids)


@pytest.mark.parametrize("deleted", [False, True])
async def test_clock_that_is_set_back_loses_nothing_to_a_sink(
    log: SinkLog, tmp_path: Path, *, deleted: bool
) -> None:
    """As of a machine that boots an hour ahead."""
    await log.store(2)
    [file] = log.outbox.folder.glob("*.ids")
    ahead = file.with_stem(str(new_id(datetime.now(UTC) + timedelta(hours=1))))
    file.rename(ahead)
    log.restart(file_bytes=1)
    delivery = log.delivery(parquet(tmp_path))
    ids = await log.store(2)
    await log.finish(delivery)
    if deleted:
        for path in log.outbox.folder.glob("*.ids"):
            path.unlink()
    ids += await log.store(2)
    await log.finish(delivery)
    log.outbox.forget([delivery.cursor.needed])
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted(ids)
    assert len(list(log.outbox.folder.glob("*.ids"))) == 1


async def test_prediction_that_was_stored_before_the_clock_was_set_back_waits_no_longer(
    log: SinkLog, tmp_path: Path
) -> None:
    delivery = log.delivery(parquet(tmp_path))
    ids = await log.store(2)
    [file] = log.outbox.folder.glob("*.ids")
    record = msgspec.json.decode(file.read_bytes())
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    file.write_bytes(msgspec.json.encode(record | {"at": ahead}) + b"\n")
    async with log.delivering(delivery):
        await until(lambda: sorted(parquet_ids(tmp_path / "parquet")) == sorted(ids))


@pytest.mark.parametrize("broken", ["folder", "disk"])
async def test_an_outbox_that_cannot_be_written_loses_to_the_sinks_and_not_to_postgresql(
    log: SinkLog, broken: str
) -> None:
    lost = {sink: count("lost", sink) for sink in ("events", "parquet")}
    if broken == "folder":
        log.spool.mkdir()
        (log.spool / "sinks").write_text("a file")
    else:
        log.restart(max_predictions=0, file_bytes=0)
    ids = await log.store(7)
    assert await log.count_stored(ids) == 7
    assert {sink: count("lost", sink) - before for sink, before in lost.items()} == {
        "events": 7,
        "parquet": 7,
    }


async def test_ids_that_the_disk_has_half_room_for_are_lost_whole_and_the_next_are_not(
    log: SinkLog, tmp_path: Path
) -> None:
    """A write may take some of many records before the disk is full."""
    delivery = log.delivery(parquet(tmp_path))
    first = await log.store(1)
    [file] = log.outbox.folder.glob("*.ids")
    size = file.stat().st_size
    many = dict.fromkeys((new_id(datetime.now(UTC)) for _ in range(300)), 1)
    with no_larger_files(size + 10_000), pytest.raises(OSError, match="File too large"):
        log.outbox._append(0, many)
    assert file.stat().st_size == size
    later = await log.store(3)
    await log.finish(delivery)
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted([*first, *later])
    numbers = [(found.record.number, len(found.record.ids)) for found in records(log)]
    assert numbers == [(0, 1), (1, 3)]


def records(log: SinkLog) -> list[Found]:
    return log.outbox.read(log.outbox.beginning(), 1_000)


async def test_a_deleted_outbox_is_made_again_and_what_waited_is_counted_lost(
    log: SinkLog, tmp_path: Path
) -> None:
    lost = count("lost", "parquet")
    delivery = log.delivery(parquet(tmp_path))
    await log.store(5)
    for path in log.outbox.folder.iterdir():
        path.unlink()
    log.outbox.folder.rmdir()
    later = await log.store(2)
    await log.finish(delivery)
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted(later)
    assert count("lost", "parquet") - lost == 5


async def test_half_a_record_of_a_killed_shipper_is_passed_over(
    log: SinkLog, tmp_path: Path
) -> None:
    log.delivery(parquet(tmp_path))
    ids = await log.store(2)
    [file] = log.outbox.folder.glob("*.ids")
    with file.open("ab") as torn:
        torn.write(b'{"number":2,"transaction":7,"at":"2026-')
    log.restart()
    ids += await log.store(3)
    assert await handed(log, tmp_path) == sorted(ids)


@pytest.mark.parametrize("content", [b"{", b'{"a":' * 9_000, b'{"a": "\xff"}'])
async def test_a_damaged_cursor_delivers_again_and_ends_no_process(
    log: SinkLog, content: bytes
) -> None:
    with receiver() as received:
        log.delivery(events_sink(received.url))
        ids = await log.store(2)
        (log.outbox.folder / "events.json").write_bytes(content)
        log.restart()
        await log.finish(log.delivery(events_sink(received.url)))
    assert sorted(received.ids) == sorted(ids)


def test_names_of_batches_differ_by_their_start() -> None:
    start, end = Position("0199.ids", 0, 0), Position("0199.ids", 90, 1)
    assert Batch(start, end).name == "0199-0"
    assert Batch(end, end).name == "0199-90"


def test_a_cursor_is_where_it_was_when_the_disk_refuses_it(log: SinkLog) -> None:
    cursor = Cursor(log.outbox, "events")
    at = cursor.next
    (log.outbox.folder / "events.json").unlink()
    log.outbox.folder.rmdir()
    log.outbox.folder.write_text("a file")
    with pytest.raises(OSError, match="sinks"):
        cursor.save(Position("other", 1, 1))
    assert cursor.next == at
