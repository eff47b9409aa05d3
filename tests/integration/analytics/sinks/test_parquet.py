"""Each stored prediction is in one Parquet file, once, whatever happens in between."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.asyn import AsyncFileSystem

from analytics.log.sinks.delivery import MAX_BATCH_CHARACTERS
from analytics.log.sinks.parquet import SCHEMA, ParquetSink
from analytics.log.sinks.rows import QUERY_ROWS
from core.keyed_hash import text_digest
from core.types import Comparison
from core.uuid7 import new_id
from tests.full_disk import no_larger_files
from tests.integration.analytics.sinks.conftest import SinkLog, count, parquet_ids
from tests.integration.predictions import make_prediction
from tests.waiting import until


async def test_stored_predictions_are_in_the_file_of_their_hour(
    log: SinkLog, tmp_path: Path
) -> None:
    folder = tmp_path / "parquet"
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=300))
    hour = datetime(2026, 3, 1, 22, 59, 59, tzinfo=UTC)
    made = [make_prediction(created_at=hour + timedelta(seconds=step)) for step in (0, 1, 3_601)]
    await log.store(predictions=made)
    await log.finish(delivery)
    by_hour = {
        str(path.parent.relative_to(folder)): parquet_ids(path.parent)
        for path in folder.rglob("*.parquet")
    }
    assert by_hour == {
        "date=2026-03-01/hour=22": [str(made[0].id)],
        "date=2026-03-01/hour=23": [str(made[1].id)],
        "date=2026-03-02/hour=00": [str(made[2].id)],
    }


async def test_a_file_has_the_columns_of_the_log_and_no_text_that_it_does_not_keep(
    log: SinkLog, tmp_path: Path
) -> None:
    delivery = log.delivery(ParquetSink(str(tmp_path / "parquet"), batch_seconds=300))
    v1 = make_prediction("A film.", endpoint="/predict/ab-compare")
    v2 = make_prediction("A film.", version="v2", endpoint="/predict/ab-compare")
    pair = Comparison(new_id(v1.created_at), v1.created_at, v1, v2)
    await log.store(predictions=[v1, v2], comparisons=[pair])
    [kept] = await log.store(predictions=[make_prediction("Kept.")], text_storage="full")
    await log.finish(delivery)
    table = ds.dataset(tmp_path / "parquet", partitioning=None).to_table()
    assert table.schema.equals(SCHEMA)
    rows = {row["id"]: row for row in table.to_pylist()}
    assert {row["text"] for row in rows.values()} == {None, "Kept."}
    assert rows[kept]["text"] == "Kept."
    one = rows[str(v1.id)]
    assert one["comparison_id"] == rows[str(v2.id)]["comparison_id"] == str(pair.id)
    assert (one["model_version"], one["engine"], one["sentiment"]) == ("v1", "fake", "positive")
    assert one["created_at"] == v1.created_at
    assert len(one["text_hash"]) == 64
    assert one["text_hash"] != text_digest(v1.text).hex()


async def test_replicas_write_to_one_folder_and_never_to_one_file(
    log: SinkLog, tmp_path: Path
) -> None:
    folder = tmp_path / "parquet"
    other = SinkLog(log.engine, log.writing, tmp_path / "other")
    # Both outboxes are empty when the deliveries begin, as at the start of new replicas.
    pairs = [
        (each, each.delivery(ParquetSink(str(folder), batch_seconds=300))) for each in (log, other)
    ]
    ids: list[str] = []
    for number in (2, 3):
        for each, delivery in pairs:
            ids += await each.store(number)
            await each.finish(delivery)
    assert sorted(parquet_ids(folder)) == sorted(ids)
    other.outbox.close()


async def test_many_predictions_are_delivered_once_and_counted(
    log: SinkLog, tmp_path: Path
) -> None:
    folder, before = tmp_path / "parquet", count("delivered", "parquet")
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=300))
    ids = [id_ for number in (1, 250, 99) for id_ in await log.store(number)]
    await log.finish(delivery)
    assert sorted(parquet_ids(folder)) == sorted(ids)
    assert count("delivered", "parquet") - before == 350
    assert delivery.waiting == 0


async def test_long_texts_are_delivered_in_batches_of_bounded_size(
    log: SinkLog, tmp_path: Path
) -> None:
    delivery = log.delivery(ParquetSink(str(tmp_path / "parquet"), batch_seconds=300))
    made = [make_prediction(f"{n:09} " * 2_000) for n in range(700)]
    stored = await log.store(predictions=made, text_storage="full")
    await log.finish(delivery)
    assert sorted(parquet_ids(tmp_path / "parquet")) == sorted(stored)
    sizes = [
        sum(map(len, pq.read_table(path, columns=["text"], partitioning=None)["text"].to_pylist()))
        for path in (tmp_path / "parquet").rglob("*.parquet")
    ]
    assert len(sizes) > 1
    assert max(sizes) <= MAX_BATCH_CHARACTERS


async def test_a_folder_that_cannot_be_written_gets_what_waited_once_it_can(
    log: SinkLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "parquet"
    folder.write_text("a file is in the place of the folder")
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=0))
    ids = await log.store(3)
    async with log.delivering(delivery):
        await until(lambda: "the sink parquet has not taken predictions" in caplog.text)
        ids += await log.store(2)
        folder.unlink()
        await until(lambda: delivery.waiting == 0)
    assert sorted(parquet_ids(folder)) == sorted(ids)


async def test_a_full_disk_leaves_no_half_of_a_file(log: SinkLog, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=0))
    ids = await log.store(200)
    before = count("failures", "parquet", reason="unavailable")
    with ExitStack() as disk:
        # A part of the file is written.
        disk.enter_context(no_larger_files(4_096))
        async with log.delivering(delivery):
            await until(lambda: count("failures", "parquet", reason="unavailable") > before)
            assert parquet_ids(folder) == []
            disk.close()
            await until(lambda: delivery.waiting == 0)
    assert sorted(parquet_ids(folder)) == sorted(ids)


async def test_past_the_bound_the_batch_that_is_under_way_is_kept(
    log: SinkLog, tmp_path: Path
) -> None:
    """It may be written already: lost and there would be counted twice."""
    folder, lost = tmp_path / "parquet", count("lost", "parquet")
    folder.write_text("in the way")
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=0), max_predictions=1_000)
    ids = await log.store(50)
    async with log.delivering(delivery):
        await until(lambda: delivery.cursor.batch is not None)
        for _ in range(3):
            ids += await log.store(800)
        await until(lambda: count("lost", "parquet") > lost)
        folder.unlink()
        await until(lambda: delivery.waiting == 0)
    there = parquet_ids(folder)
    assert len(there) == len(set(there))
    assert set(ids[:50]) <= set(there) <= set(ids)
    assert count("lost", "parquet") - lost == len(ids) - len(there)


async def test_an_object_store_gets_whole_files(log: SinkLog) -> None:
    delivery = log.delivery(ParquetSink("memory://bucket/log", batch_seconds=0))
    ids = await log.store(3)
    await log.finish(delivery)
    store = fsspec.filesystem("memory")
    [file] = store.glob("/bucket/log/date=*/hour=*/*")
    with store.open(file, "rb") as opened:
        assert sorted(pq.read_table(opened)["id"].to_pylist()) == sorted(ids)
    store.rm("/bucket", recursive=True)


class StuckStore(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store whose package waits for ever, until it is set free."""

    protocol = "az"
    is_free = False
    taken: ClassVar[list[str]] = []

    async def _pipe_file(self, path: str, *_content: object) -> None:
        if not StuckStore.is_free:
            await asyncio.Event().wait()
        StuckStore.taken.append(path)


async def test_a_store_that_never_answers_is_asked_again(
    log: SinkLog, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.register_implementation("az", StuckStore, clobber=True)
    sink = ParquetSink("az://bucket/log", batch_seconds=0, put_seconds=0.2)
    delivery = log.delivery(sink)
    await log.store(3)
    async with log.delivering(delivery):
        await until(lambda: "the store has not taken a file within 0.2 s" in caplog.text)
        StuckStore.is_free = True
        await until(lambda: delivery.waiting == 0)
    assert len(StuckStore.taken) == 1


async def test_a_few_predictions_wait_for_a_larger_file(log: SinkLog, tmp_path: Path) -> None:
    delivery = log.delivery(ParquetSink(str(tmp_path / "parquet"), batch_seconds=300))
    async with log.delivering(delivery):
        await log.store(3)
        await until(lambda: delivery.waiting == 3)
        assert parquet_ids(tmp_path / "parquet") == []


class SlowStore(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store behind a slow link."""

    protocol = "abfs"
    taken: ClassVar[list[str]] = []

    async def _pipe_file(self, path: str, *_content: object) -> None:
        await asyncio.sleep(0.5)
        SlowStore.taken.append(path)


async def test_file_that_takes_longer_than_the_time_out_gets_more_time(log: SinkLog) -> None:
    fsspec.register_implementation("abfs", SlowStore, clobber=True)
    delivery = log.delivery(ParquetSink("abfs://bucket/log", batch_seconds=0, put_seconds=0.2))
    await log.store(3)
    async with log.delivering(delivery):
        await until(lambda: delivery.waiting == 0)
    assert len(SlowStore.taken) == 1


async def test_batch_of_many_rows_is_read_in_several_queries(log: SinkLog, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    delivery = log.delivery(ParquetSink(str(folder), batch_seconds=0))
    ids = await log.store(QUERY_ROWS + 100)
    await log.finish(delivery)
    assert sorted(parquet_ids(folder)) == sorted(ids)
