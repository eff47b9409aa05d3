"""The writer stores every prediction correctly and once in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import URL, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_keys import FIRST_KEY, HashKeys
from analytics.log.records import Entry, TextStorage, encode, to_record
from analytics.log.writer import NotInserted
from core.postgres import DATABASE_FAILURES, create_engine, is_value_failure
from core.types import VERSIONS, Assignment, Comparison, Experiment, Failure, Split
from core.uuid7 import new_id
from tests.integration.predictions import PredictionWriter, make_prediction

ALL = "SELECT p.*, m.version, m.revision, m.engine FROM predictions p JOIN model_versions m ON m.id = p.model_version_id ORDER BY p.id"  # noqa: E501


async def rows(engine: AsyncEngine, statement: str = ALL) -> list[dict[str, object]]:
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(text(statement))).mappings()]


@pytest.mark.parametrize("storage", ["full", "hash", "none"])
async def test_a_row_holds_every_field_of_its_prediction(
    engine: AsyncEngine, storage: TextStorage
) -> None:
    made = make_prediction(
        "Ein Film, 漢字", scores={"negative": 0.5, "neutral": 0.125, "positive": 0.375}
    )
    await PredictionWriter(engine, storage).write([made])
    [row] = await rows(engine)
    hashes = HashKeys()
    await hashes.refresh(engine)
    digest = hashlib.sha256(made.text.encode()).digest()
    del row["model_version_id"]
    assert row == {
        "id": made.id,
        "created_at": made.created_at,
        "endpoint": "/predict",
        "sentiment": "negative",
        "confidence": 0.5,
        "score_negative": 0.5,
        "score_neutral": 0.125,
        "score_positive": 0.375,
        "latency_ms": 12.5,
        "cache_hit": False,
        "truncated": False,
        "token_count": 5,
        "text_characters": len(made.text),
        "text_sha256": (None if storage == "none" else hashes.hash(digest, FIRST_KEY)),
        "hash_key_id": (None if storage == "none" else FIRST_KEY),
        "text": made.text if storage == "full" else None,
        "experiment_id": None,
        "subject_key": None,
        "windows": 1,
        "arm_group": None,
        "version": "v1",
        "revision": "v1-revision",
        "engine": "fake",
    }


async def test_windows_are_stored_and_their_request_is_not(engine: AsyncEngine) -> None:
    made = replace(make_prediction(), windows=3, long_text="windows")
    assert b"long_text" not in encode(Entry((to_record(made, "none"),)))
    await PredictionWriter(engine).write([made])
    [row] = await rows(engine)
    assert row["windows"] == 3


async def test_a_batch_written_twice_is_stored_once(engine: AsyncEngine) -> None:
    v1, v2 = make_prediction(), make_prediction(version="v2")
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    # Two writers, as after a crash between the commit and its answer.
    counts = [await PredictionWriter(engine).write([v1, v2], [comparison]) for _ in range(2)]
    assert counts == [2, 0]
    v3, v4 = make_prediction(), make_prediction(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert await PredictionWriter(engine).write([v2, v3, v4, v1]) == 2
    assert await PredictionWriter(engine).write([]) == 0
    stored = sorted(str(row["id"]) for row in await rows(engine))
    assert stored == sorted(map(str, (v1.id, v2.id, v3.id, v4.id)))
    [linked] = await rows(engine, "SELECT * FROM comparisons")
    assert (linked["v1_prediction_id"], linked["v2_prediction_id"]) == (v1.id, v2.id)
    assert len(await rows(engine, "SELECT * FROM model_versions")) == 2


@pytest.mark.parametrize("table", ["predictions", "comparisons", "failures"])
async def test_nothing_is_stored_without_the_key_that_tells_repeats(
    engine: AsyncEngine, table: str
) -> None:
    """As after a restore that was broken off: a repeat would be stored and counted again."""
    key = f"ALTER TABLE {table} DROP CONSTRAINT pk_{table} CASCADE"
    async with engine.begin() as connection:
        await connection.execute(text(key))
    v1, v2 = make_prediction(), make_prediction(version="v2")
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    failure = Failure(v1.id, v1.created_at, "/predict", v1.model, 1)
    with pytest.raises(ProgrammingError, match="no unique or exclusion constraint"):
        await PredictionWriter(engine).write([v1, v2], [comparison], [failure])
    assert await rows(engine) == []


async def test_two_tries_of_a_request_in_one_batch_are_stored_and_counted_once(
    engine: AsyncEngine,
) -> None:
    v1, v2 = make_prediction(), make_prediction(version="v2")
    subject = make_prediction(endpoint="/predict/ab", version="v2")
    experiment = Experiment(Split("salt", 50), v1.model, v2.model)
    subject = replace(subject, assignment=Assignment(experiment, bytes(32)))
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    # As after a process that died between the record and the reply: the second try took longer,
    # and perhaps another version answered it.
    again = [
        replace(prediction, latency_ms=99.0, model=v1.model) for prediction in (v1, v2, subject)
    ]
    await PredictionWriter(engine).write([v1, v2, subject, *again], [comparison, comparison])
    stored = {row["id"]: row["latency_ms"] for row in await rows(engine)}
    assert stored == {prediction.id: 12.5 for prediction in (v1, v2, subject)}
    [counted] = await rows(
        engine, "SELECT sum(positive) AS texts FROM rollups WHERE bucket_seconds = 86400"
    )
    assert counted["texts"] == 3
    [compared] = await rows(
        engine, "SELECT sum(texts) AS texts FROM comparison_rollups WHERE bucket_seconds = 86400"
    )
    assert compared["texts"] == 1
    [assigned] = await rows(
        engine, "SELECT sum(subjects) AS n FROM assignment_rollups WHERE bucket_seconds = 86400"
    )
    assert assigned["n"] == 1


async def test_rows_that_a_trigger_leaves_out_do_not_count_as_stored_before(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN IF NEW.latency_ms = 77 THEN RETURN NULL; END IF; RETURN NEW; END'"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER leaves_out BEFORE INSERT ON predictions "
                "FOR EACH ROW EXECUTE FUNCTION leave_out()"
            )
        )
    writer = PredictionWriter(engine)
    first, other = make_prediction("one"), make_prediction("two")
    await writer.write([first])
    left_out = make_prediction("three", latency_ms=77)
    with pytest.raises(NotInserted, match="inserts 1 predictions without an error"):
        await writer.write([first, other, left_out])
    assert [row["id"] for row in await rows(engine)] == [first.id]
    async with engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER leaves_out ON predictions"))
    await writer.write([first, other, left_out])
    assert len(await rows(engine)) == 3


async def test_a_batch_with_a_bad_row_stores_nothing(engine: AsyncEngine) -> None:
    bad = make_prediction(scores={"positive": 1.5})
    with pytest.raises(DATABASE_FAILURES):
        await PredictionWriter(engine).write([make_prediction(), bad])
    assert await rows(engine) == []


async def test_a_class_that_the_checkpoint_lacks_has_a_null_score(engine: AsyncEngine) -> None:
    made = make_prediction(scores={"positive": 0.75, "negative": 0.25})
    await PredictionWriter(engine).write([made])
    [row] = await rows(engine)
    assert (row["score_negative"], row["score_neutral"], row["score_positive"]) == (
        0.25,
        None,
        0.75,
    )


async def test_a_write_succeeds_after_one_that_failed(engine: AsyncEngine) -> None:
    writer = PredictionWriter(engine)
    good, bad = make_prediction(), make_prediction(scores={"positive": 1.5})
    with pytest.raises(DATABASE_FAILURES) as caught:
        await writer.write([good, bad], [])
    assert is_value_failure(caught.value)
    await writer.write([good], [])
    assert [row["id"] for row in await rows(engine)] == [good.id]


async def test_concurrent_writers_insert_each_model_version_once(engine: AsyncEngine) -> None:
    batches = [[make_prediction(version=v) for v in VERSIONS[:: 1 - 2 * (n % 2)]] for n in range(8)]
    await asyncio.gather(*(PredictionWriter(engine).write(batch, []) for batch in batches))
    assert len(await rows(engine)) == 16
    made = await rows(engine, "SELECT version FROM model_versions ORDER BY version")
    assert [row["version"] for row in made] == ["v1", "v2"]


async def test_a_start_with_known_models_uses_up_no_id(engine: AsyncEngine) -> None:
    for _ in range(5):
        await PredictionWriter(engine).write([make_prediction()])
    await PredictionWriter(engine).write([make_prediction(version="v2")])
    made = await rows(engine, "SELECT id FROM model_versions ORDER BY id")
    assert [row["id"] for row in made] == [1, 2]


async def test_new_weights_or_another_engine_are_another_model_version(
    engine: AsyncEngine,
) -> None:
    model = make_prediction().model
    models = [model, model._replace(revision="other"), model._replace(engine="other")]
    await PredictionWriter(engine).write([replace(make_prediction(), model=m) for m in models])
    assert {(row["revision"], row["engine"]) for row in await rows(engine)} == {
        ("v1-revision", "fake"),
        ("other", "fake"),
        ("v1-revision", "other"),
    }


async def test_a_batch_is_one_transaction(engine: AsyncEngine) -> None:
    made = [make_prediction(f"text {number}") for number in range(5_000)]
    await PredictionWriter(engine).write(made)
    [counted] = await rows(engine, "SELECT count(*) AS n, count(DISTINCT xmin::text) AS t "
                                   "FROM predictions")  # fmt: skip
    assert counted == {"n": 5_000, "t": 1}


async def test_an_unreachable_server_raises_an_error_that_the_shipper_retries(
    database_url: URL,
) -> None:
    engine = create_engine(
        database_url.update_query_dict({"host": "/nowhere"}), pool_size=2, timeout_seconds=1
    )
    with pytest.raises(DATABASE_FAILURES) as caught:
        await PredictionWriter(engine).write([make_prediction()])
    assert not isinstance(caught.value, asyncpg.DataError)
    await engine.dispose()
