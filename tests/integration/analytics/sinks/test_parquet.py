"""Each stored prediction is in one Parquet file, once, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.dataset as ds

from analytics.log.sinks.parquet import SCHEMA, ParquetSink
from core.types import Comparison
from core.uuid7 import new_id
from tests.integration.analytics.sinks.conftest import SinkLog, count, parquet_ids
from tests.integration.predictions import make_prediction


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
    assert one["text_hash"] != to_hex(v1.text)


def to_hex(text: str) -> str:
    from core.keyed_hash import text_digest

    return text_digest(text).hex()


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
