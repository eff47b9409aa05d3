"""Hashes in the log are keyed: those of this release, of releases before, and after a new key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_conversion import HashConversion
from analytics.hash_keys import FIRST_KEY, HashKeys, add_key
from analytics.log.records import ComparisonRecord, to_record
from analytics.log.writer import LogWriter
from core.keyed_hash import subject_digest
from core.types import Comparison, Prediction, Sentiment
from core.uuid7 import new_id
from tests.integration.analytics.ab_history import START, History, give, reply
from tests.integration.predictions import PredictionWriter, make_prediction

OLD_KEY, NEW_KEY = b"a" * 32, b"b" * 32
# Short ones, alike ones, other scripts, and one that is a hash itself.
TEXTS = (
    "a", "ok", "Nice!", "nice!", "no", "ja", "Ein Film, 漢字", "🎉", "x" * 5_000, " inner  space ",
    "'; DROP TABLE predictions", hashlib.sha256(b"ok").hexdigest(),
)  # fmt: skip
SUBJECTS = ("1", "42", "ana", "Ana", "ana@example.org", "é", "0" * 200)
EVERY_VALUE = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = 'public' AND data_type IN ('bytea', 'text', 'jsonb')"""


def digest(of: str) -> bytes:
    return hashlib.sha256(of.encode()).digest()


def history(texts: Iterable[str] = (), subjects: Iterable[str] = (), hour: int = 1) -> History:
    made, at = History(hour), START + timedelta(hours=hour)
    for sample in texts:
        made.compare(sample, at)
    for subject in subjects:
        made.assign(subject, at=at)
    return made


async def rows(engine: AsyncEngine, statement: str, **parameters: Any) -> list[Any]:
    async with engine.connect() as connection:
        return list(await connection.execute(text(statement), parameters))


async def run(engine: AsyncEngine, statement: str, **parameters: Any) -> int:
    async with engine.begin() as connection:
        return (await connection.execute(text(statement), parameters)).rowcount


async def counts(engine: AsyncEngine) -> tuple[int, int]:
    """The pairs of texts and the subjects that count."""
    found = await reply(engine)
    pairs = 0 if found.paired is None else found.paired.pairs
    arms = {} if found.randomised is None else found.randomised.arms
    return pairs, sum(arm.subjects for arm in arms.values())


async def take_keys_away(engine: AsyncEngine, digests: Iterable[bytes]) -> None:
    """Make rows as a release without keys stored them."""
    hashes = HashKeys()
    await hashes.refresh(engine)
    async with engine.begin() as connection:
        for column, table in (
            ("text_sha256", "predictions"),
            ("subject_key", "predictions"),
            ("text_key", "compared_texts"),
            ("subject_key", "assignments"),
        ):
            for plain in digests:
                await connection.execute(
                    text(
                        f"UPDATE {table} SET {column} = :plain, hash_key_id = NULL"
                        f" WHERE {column} = :hash"
                    ),
                    {"plain": plain, "hash": hashes.hash(plain, FIRST_KEY)},
                )
        await connection.execute(
            text("UPDATE hash_conversions SET finished_at = NULL, next_id = NULL")
        )


async def stored_values(engine: AsyncEngine) -> bytes:
    """Every value of the database in one string, bytes as they are and in hexadecimal."""
    values: list[bytes] = []
    for table, column in await rows(engine, EVERY_VALUE):
        for (value,) in await rows(engine, f'SELECT "{column}"::text FROM "{table}"'):
            values.append((value or "").encode())
    return b"\n".join(values)


def plain_digests() -> list[bytes]:
    return [*map(digest, TEXTS), *(subject_digest(subject, "salt") for subject in SUBJECTS)]


async def test_no_plain_hash_is_in_the_database(engine: AsyncEngine) -> None:
    await history(TEXTS, SUBJECTS).write(engine)
    await PredictionWriter(engine).write([make_prediction(sample) for sample in TEXTS])
    stored = await stored_values(engine)
    assert not [plain for plain in plain_digests() if plain.hex().encode() in stored]
    assert await counts(engine) == (len(TEXTS), len(SUBJECTS))


async def test_rows_of_earlier_releases_are_keyed_and_nothing_counts_twice(
    engine: AsyncEngine,
) -> None:
    old = history(TEXTS, SUBJECTS)
    await old.write(engine)
    await take_keys_away(engine, plain_digests())
    stored = await stored_values(engine)
    assert all(plain.hex().encode() in stored for plain in plain_digests())
    before = await reply(engine)
    # A batch keys the rows that it touches, before the background comes to them.
    await history(TEXTS[:6], SUBJECTS[:3], hour=2).write(engine)
    assert await counts(engine) == (len(TEXTS), len(SUBJECTS))
    await HashConversion(engine).convert_all()
    stored = await stored_values(engine)
    assert not [plain for plain in plain_digests() if plain.hex().encode() in stored]
    unkeyed = "SELECT count(*) FROM {} WHERE hash_key_id IS NULL"
    for table in ("predictions", "compared_texts", "assignments"):
        assert (await rows(engine, unkeyed.format(table)))[0][0] == 0, table
    await history(TEXTS, SUBJECTS, hour=3).write(engine)
    after = await reply(engine)
    assert after.paired is not None
    assert before.paired is not None
    assert after.paired.pairs == before.paired.pairs
    assert await counts(engine) == (len(TEXTS), len(SUBJECTS))


@pytest.mark.parametrize("is_converted", ["no", "tests", "all"])
async def test_label_of_an_old_prediction_counts(engine: AsyncEngine, is_converted: str) -> None:
    old = history(TEXTS[:2], SUBJECTS[:2])
    await old.write(engine)
    await take_keys_away(engine, plain_digests())
    conversion = HashConversion(engine)
    if is_converted == "tests":
        while await conversion.convert_batch():
            left = await rows(engine, "SELECT 1 FROM hash_conversions WHERE finished_at IS NULL")
            if len(left) == 1:
                break
    elif is_converted == "all":
        await conversion.convert_all()
    await give(engine, [(made.id, "positive") for made in old.predictions])
    found = await reply(engine)
    assert found.randomised is not None
    assert sum(arm.labelled for arm in found.randomised.arms.values()) == 2
    labels = await rows(engine, "SELECT label FROM compared_texts")
    assert labels == [("positive",)] * 2


async def test_earlier_release_writes_beside_this_one(engine: AsyncEngine) -> None:
    await history(["known"], ["ana"]).write(engine)
    [pair] = await rows(
        engine, "SELECT v1_model_version_id, v2_model_version_id FROM compared_texts"
    )
    insert_text = (
        "INSERT INTO compared_texts (text_key, v1_model_version_id, v2_model_version_id,"
        " first_compared, v1_sentiment, v2_sentiment, confidence_difference)"
        " VALUES (:key, :v1, :v2, now(), 'positive', 'negative', 0) ON CONFLICT DO NOTHING"
    )
    models = {"v1": pair[0], "v2": pair[1]}
    assert await run(engine, insert_text, key=digest("known"), **models) == 0
    assert await run(engine, insert_text, key=digest("new"), **models) == 1
    # Without a hash, the key is the id of the comparison.
    assert await run(engine, insert_text, key=bytes(16), **models) == 1
    insert_subject = (
        "INSERT INTO assignments (experiment_id, subject_key, version, first_seen)"
        " SELECT id, :key, 'v1', now() FROM experiments ON CONFLICT DO NOTHING"
    )
    assert await run(engine, insert_subject, key=subject_digest("ana", "salt")) == 0
    assert await run(engine, insert_subject, key=subject_digest("ben", "salt")) == 1
    insert_prediction = (
        "INSERT INTO predictions SELECT :id, created_at, model_version_id, endpoint, sentiment,"
        " confidence, score_negative, score_neutral, score_positive, latency_ms, cache_hit,"
        " truncated, token_count, text_characters, :text, NULL, experiment_id, :subject"
        " FROM predictions WHERE experiment_id IS NOT NULL LIMIT 1"
    )
    new = {"text": digest("new"), "subject": subject_digest("ben", "salt")}
    assert await run(engine, insert_prediction, id=new_id(START + timedelta(hours=1)), **new) == 1
    # This release finds what that one wrote.
    await history(["known", "new"], ["ana", "ben"], hour=2).write(engine)
    texts = await rows(engine, "SELECT text_key FROM compared_texts")
    assert len(texts) == 3
    assert (bytes(16),) in texts
    assert len(await rows(engine, "SELECT 1 FROM assignments")) == 2
    stored = await stored_values(engine)
    for plain in (*map(digest, ("known", "new")), new["subject"]):
        assert plain.hex().encode() not in stored


async def test_rows_that_an_earlier_release_left_are_keyed_when_it_writes_again(
    engine: AsyncEngine,
) -> None:
    await history(["known"], ["ana"]).write(engine)
    await take_keys_away(engine, [digest("known"), subject_digest("ana", "salt")])
    again = (
        "INSERT INTO compared_texts SELECT text_key, v1_model_version_id, v2_model_version_id,"
        " now(), v1_sentiment, v2_sentiment, 0 FROM compared_texts ON CONFLICT DO NOTHING"
    )
    assert await run(engine, again) == 0
    again = (
        "INSERT INTO assignments SELECT experiment_id, subject_key, version, now()"
        " FROM assignments ON CONFLICT DO NOTHING"
    )
    assert await run(engine, again) == 0
    for table in ("compared_texts", "assignments"):
        assert await rows(engine, f"SELECT hash_key_id FROM {table}") == [(1,)]


async def rotate(engine: AsyncEngine) -> int:
    async with engine.begin() as connection:
        return await add_key(connection)


async def test_running_test_keeps_its_key(engine: AsyncEngine) -> None:
    await history(TEXTS, SUBJECTS).write(engine)
    second = await rotate(engine)
    await history(TEXTS, SUBJECTS, hour=2).write(engine)
    assert await counts(engine) == (len(TEXTS), len(SUBJECTS))
    await PredictionWriter(engine).write([make_prediction("alone")])
    keys = "SELECT DISTINCT endpoint, hash_key_id FROM predictions ORDER BY 1"
    assert set(await rows(engine, keys)) == {
        ("/predict", second), ("/predict/ab", FIRST_KEY), ("/predict/ab", second),
        ("/predict/ab-compare", FIRST_KEY),
    }  # fmt: skip


async def shadowed(engine: AsyncEngine, of: str, hour: int) -> tuple[Prediction, Prediction]:
    """A prediction of /predict that is stored, and later its shadow with the comparison."""
    at = START + timedelta(hours=hour)
    first = make_prediction(of, created_at=at)
    shadow = make_prediction(of, version="v2", created_at=at, endpoint="shadow")
    writer = PredictionWriter(engine)
    await writer.write([first])
    await writer.write([first, shadow], [Comparison(new_id(at), at, first, shadow)])
    return first, shadow


async def test_label_finds_a_shadowed_text_after_a_new_key(engine: AsyncEngine) -> None:
    await shadowed(engine, "first", 1)
    await rotate(engine)
    first, _ = await shadowed(engine, "second", 2)
    await give(engine, [(first.id, "negative")])
    labelled = await rows(engine, "SELECT text_key FROM compared_texts WHERE label = 'negative'")
    hashes = HashKeys()
    await hashes.refresh(engine)
    assert labelled == [(hashes.hash(digest("second"), FIRST_KEY),)]


def writer_with(engine: AsyncEngine, *keys: bytes) -> LogWriter:
    return LogWriter(engine, keys)


async def write(writer: LogWriter, made: History) -> None:
    await writer.write(
        [to_record(prediction, "hash") for prediction in made.predictions],
        [ComparisonRecord.of(pair) for pair in made.comparisons],
    )


async def test_key_of_the_setting_is_not_stored(engine: AsyncEngine) -> None:
    await write(writer_with(engine, OLD_KEY), history(TEXTS, SUBJECTS))
    await write(writer_with(engine, NEW_KEY, OLD_KEY), history(TEXTS, SUBJECTS, hour=2))
    assert await counts(engine) == (len(TEXTS), len(SUBJECTS))
    stored = await stored_values(engine)
    for key in (OLD_KEY, NEW_KEY):
        assert key.hex().encode() not in stored
        assert bytes(byte ^ 0x36 for byte in key).hex().encode() not in stored
    # The one of the migration is there too; no number is left out.
    assert await rows(engine, "SELECT id, inner_pad IS NULL FROM log_hash_keys ORDER BY id") == [
        (1, False), (2, True), (3, True),
    ]  # fmt: skip


async def test_test_whose_key_is_gone_goes_on_with_the_newest(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await write(writer_with(engine, OLD_KEY), history(["a"], ["ana"]))
    await write(writer_with(engine, NEW_KEY), history(["a"], ["ana"], hour=2))
    # Nobody can tell that they are the same.
    assert await counts(engine) == (2, 2)
    assert "is not in LOG_HASH_KEY any more" in caplog.text
    await write(writer_with(engine, NEW_KEY), history(["a"], ["ana"], hour=3))
    assert await counts(engine) == (2, 2)


async def test_two_processes_register_a_key_once(engine: AsyncEngine) -> None:
    await asyncio.gather(*(HashKeys([OLD_KEY]).refresh(engine) for _ in range(5)))
    assert len(await rows(engine, "SELECT 1 FROM log_hash_keys")) == 2


async def test_postgresql_computes_the_hmac_of_rfc_2104(engine: AsyncEngine) -> None:
    hashes = HashKeys()
    await hashes.refresh(engine)
    for sample in TEXTS:
        statement = "SELECT log_hash(:value, 1::smallint)"
        assert await rows(engine, statement, value=digest(sample)) == [
            (hashes.hash(digest(sample), FIRST_KEY),)
        ]


async def test_labels_without_hashes_still_count(engine: AsyncEngine) -> None:
    made = history(["a", "b"])
    await made.write(engine, "none")
    labels: list[tuple[Any, Sentiment]] = [(pair.v1.id, "neutral") for pair in made.comparisons]
    await give(engine, labels)
    assert await rows(engine, "SELECT label, octet_length(text_key) FROM compared_texts") == [
        ("neutral", 16), ("neutral", 16),
    ]  # fmt: skip


async def test_bucket_of_a_subject_does_not_depend_on_the_key(engine: AsyncEngine) -> None:
    made = history((), SUBJECTS)
    await made.write(engine)
    await rotate(engine)
    again = history((), SUBJECTS, hour=2)
    await again.write(engine)
    assert [p.version for p in made.predictions] == [p.version for p in again.predictions]
