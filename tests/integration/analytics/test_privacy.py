"""What the log has of a person can be exported and erased, also what still waits in a spool."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine
from typer import BadParameter
from typer.testing import CliRunner, Result

from analytics.feedback.store import store_labels
from analytics.hash_keys import HashKeys, add_key
from analytics.log.records import Entry, encode, to_record
from analytics.log.rejected import REJECTED, set_aside
from analytics.log.seal import SpoolSeal
from analytics.log.segments import new_segment
from analytics.log.waiting import waiting_entries
from analytics.log.writer import LogWriter
from analytics.partition_maintenance import PartitionMaintenance
from analytics.privacy.erase import MOST_AHEAD, Actor, Erasure, erase, find
from analytics.privacy.export import export_data
from analytics.privacy.selection import Kind, Selector
from cache.keys import CacheKeys
from core.keyed_hash import COMPARISON_SALT, subject_digest
from core.settings import get_settings
from core.types import Comparison, Prediction
from core.uuid7 import new_id
from scripts.privacy import app, selector_of
from tests.database import fetch, run_sql, scalar
from tests.integration.analytics.ab_history import START, History
from tests.integration.logs import spooled_log
from tests.integration.predictions import PredictionWriter, make_prediction, serve_before

ACTOR = Actor("ana", "ana's machine", "ticket 7")
TEXTS = ("mine", "Mine", "mine ", "yours", "漢字", "m", "mine!", "a mine", "ours", "MINE")
SUBJECTS = ("ana", "Ana", "ben", "an", "ana ")
ROLLUPS = (
    "SELECT to_jsonb(r)::text FROM rollups r ORDER BY 1",
    "SELECT to_jsonb(r)::text FROM label_rollups r ORDER BY 1",
    "SELECT to_jsonb(r)::text FROM comparison_rollups r ORDER BY 1",
    "SELECT to_jsonb(r)::text FROM assignment_rollups r ORDER BY 1",
)


async def rows(engine: AsyncEngine, statement: str) -> list[Any]:
    async with engine.connect() as connection:
        return list(await connection.execute(text(statement)))


async def everybody(
    engine: AsyncEngine, texts: Sequence[str] = TEXTS[:2], subjects: Sequence[str] = SUBJECTS[:2]
) -> History:
    """Two comparisons of each text and two predictions of each subject, all of them labelled."""
    made = History(1)
    for hour in (1, 2):
        at = START + timedelta(hours=hour)
        for sample in texts:
            made.compare(sample, at)
        for subject in subjects:
            made.assign(subject, at=at)
    await made.write(engine)
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        await store_labels(connection, [(p.id, "positive", now) for p in made.predictions])
    return made


async def erased(engine: AsyncEngine, kind: Kind, value: str) -> Erasure:
    return (await erase(engine, HashKeys(), Selector(kind, value), ["salt"], ACTOR))[1]


async def left(engine: AsyncEngine) -> set[Any]:
    return {row.id for row in await rows(engine, "SELECT id FROM predictions")}


async def test_erased_texts_are_gone_and_no_other(engine: AsyncEngine) -> None:
    made = await everybody(engine, TEXTS, SUBJECTS)
    rollups = [await rows(engine, statement) for statement in ROLLUPS]
    staying = {prediction.id for prediction in made.predictions}
    for number, sample in enumerate(TEXTS, 1):
        _, found = await find(engine, HashKeys(), Selector("text", sample), [])
        counts = await erased(engine, "text", sample)
        assert counts == found == Erasure(
            "text", predictions=4, labels=4, comparisons=2, compared_texts=1, tombstones=1
        )  # fmt: skip
        staying -= {prediction.id for prediction in made.predictions if prediction.text == sample}
        assert await left(engine) == staying
        assert len(await rows(engine, "SELECT 1 FROM compared_texts")) == len(TEXTS) - number
        assert (await erased(engine, "text", sample)).predictions == 0
    assert [await rows(engine, statement) for statement in ROLLUPS] == rollups


async def test_erased_subjects_are_gone_and_no_other(engine: AsyncEngine) -> None:
    made = await everybody(engine, TEXTS, SUBJECTS)
    rollups = [await rows(engine, statement) for statement in ROLLUPS]
    for number, subject in enumerate(SUBJECTS, 1):
        assert await erased(engine, "subject", subject) == Erasure(
            "subject", predictions=2, labels=2, assignments=1, tombstones=2
        )
        assert len(await left(engine)) == len(made.predictions) - 2 * number
        assert len(await rows(engine, "SELECT 1 FROM assignments")) == len(SUBJECTS) - number
    assert [await rows(engine, statement) for statement in ROLLUPS] == rollups


async def test_erased_prediction_takes_the_other_of_its_comparison_along(
    engine: AsyncEngine,
) -> None:
    made = await everybody(engine)
    pair = made.comparisons[0]
    assert await erased(engine, "prediction", str(pair.v2.id)) == Erasure(
        "prediction", predictions=2, labels=2, comparisons=1, compared_texts=1, tombstones=2
    )
    gone = {prediction.id for prediction in made.predictions} - await left(engine)
    assert gone == {pair.v1.id, pair.v2.id}


async def test_every_kept_key_is_tried(engine: AsyncEngine) -> None:
    for _ in range(3):
        await PredictionWriter(engine).write([make_prediction("mine"), make_prediction("yours")])
        async with engine.begin() as connection:
            await add_key(connection)
    assert (await erased(engine, "text", "mine")).predictions == 3
    assert len(await left(engine)) == 3


async def test_row_of_an_earlier_release_is_found(engine: AsyncEngine) -> None:
    await PredictionWriter(engine).write([make_prediction("mine"), make_prediction("yours")])
    plain = hashlib.sha256(b"mine").hexdigest()
    async with engine.begin() as connection:
        await connection.execute(
            text(rf"UPDATE predictions SET text_sha256 = '\x{plain}', hash_key_id = NULL")
        )
    assert (await erased(engine, "text", "mine")).predictions == 2


@pytest.mark.parametrize("is_rotated", [False, True])
async def test_spooled_predictions_are_not_stored_after_their_erasure(
    engine: AsyncEngine, tmp_path: Path, is_rotated: bool
) -> None:
    made, now = History(1), datetime.now(UTC)
    values: dict[Kind, str] = {}
    kinds: tuple[Kind, ...] = ("text", "subject", "prediction")
    erased_ones = [replace(made.assign(kind, at=now), text=f"of {kind}") for kind in kinds]
    for kind, mine in zip(kinds, erased_ones, strict=True):
        values[kind] = {"text": mine.text, "subject": kind, "prediction": str(mine.id)}[kind]
    other = make_prediction("yours", created_at=now)
    async with spooled_log(tmp_path / "spool") as log:
        await log.log.record([*erased_ones, other])
        for kind, value in values.items():
            counts = await erased(engine, kind, value)
            # A subject is one of a split's tests, and one of comparisons.
            tombstones = 2 if kind == "subject" else 1
            assert (counts.predictions, counts.tombstones) == (0, tombstones), kind
        if is_rotated:
            async with engine.begin() as connection:
                await add_key(connection)
        # They come again after the erasure: that is new data.
        later = datetime.now(UTC) + timedelta(milliseconds=5)
        again = [replace(made.assign(kind, at=later), text=f"of {kind}") for kind in kinds]
        await log.log.record(again)
        await log.ship(engine)
    assert await left(engine) == {other.id, *(prediction.id for prediction in again)}


async def test_host_without_the_newest_key_stores_nothing_erased(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    old, new = b"a" * 32, b"b" * 32
    async with spooled_log(tmp_path / "spool") as log:
        await log.log.record([make_prediction("mine"), other := make_prediction("yours")])
        await erase(engine, HashKeys([new, old]), Selector("text", "mine"), ["salt"], ACTOR)
        await log.ship(engine, [old])
    assert await left(engine) == {other.id}
    # Who has the database alone can try no texts with them.
    keys = "SELECT count(*) FROM erasures JOIN log_hash_keys k ON k.id = hash_key_id"
    assert await rows(engine, keys) == [(2,)]
    assert await rows(engine, f"{keys} WHERE inner_pad IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("kind", ["text", "subject", "prediction"])
async def test_what_waits_is_from_before_an_erasure_although_the_clock_was_set_back(
    engine: AsyncEngine, tmp_path: Path, kind: Kind
) -> None:
    spool = tmp_path / "spool"
    now = datetime.now(UTC)
    ahead = now + timedelta(hours=1)
    made = History(1)
    mine = replace(made.assign("me", at=ahead), text="mine")
    value = {"text": "mine", "subject": "me", "prediction": str(mine.id)}[kind]
    async with spooled_log(spool) as log:
        await log.log.record([mine])
        await log.log.record([other := make_prediction("yours", created_at=ahead)])
        await erase(engine, HashKeys(), Selector(kind, value), ["salt"], ACTOR, spool=spool)
        # By the right clock it comes before that; it is no less than another text's.
        later = datetime.now(UTC) + 2 * MOST_AHEAD
        again = replace(made.assign("me", at=later), text="mine")
        await log.log.record([again])
        await log.ship(engine)
    assert await left(engine) == {other.id, again.id}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_from_stdin_is_utf_8_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    for sent, found in (("Straße\n".encode(), "Straße"), (b"\xff", None)):
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(sent), encoding=encoding))
        with nullcontext() if found else pytest.raises(BadParameter, match="UTF-8"):
            assert selector_of(None, "-", None) == Selector("text", str(found))


async def test_what_comes_after_an_erasure_is_stored_although_the_clock_of_the_command_was_ahead(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    selector = Selector("text", "mine")
    async with spooled_log(tmp_path / "spool") as log:
        await log.log.record([make_prediction("mine")])
        await erase(engine, HashKeys(), selector, ["salt"], ACTOR, now=tomorrow)
        later = make_prediction("mine", created_at=datetime.now(UTC) + 2 * MOST_AHEAD)
        await log.log.record([later])
        await log.ship(engine)
    assert await left(engine) == {later.id}


@pytest.mark.parametrize("kind", ["subject", "prediction"])
async def test_text_of_what_waits_is_found_for_its_cached_answers(
    engine: AsyncEngine, tmp_path: Path, kind: Kind
) -> None:
    spool, hashes = tmp_path / "spool", HashKeys()
    mine = replace(History(1).assign("me", at=datetime.now(UTC)), text="mine")
    async with spooled_log(spool) as log:
        await log.log.record([mine, make_prediction("yours")])
        selector = Selector(kind, "me" if kind == "subject" else str(mine.id))
        found, _ = await erase(engine, hashes, selector, ["salt"], ACTOR, spool=spool)
    digest = hashlib.sha256(b"mine").digest()
    assert found.text_hashes == {digest, hashes.hash(digest, hashes.current)}


async def test_what_waits_without_a_hash_of_its_text_empties_the_cache(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    spool, at = tmp_path / "spool", datetime.now(UTC)
    mine = History(1).assign("me", at=at)
    async with spooled_log(spool, "none") as log:
        await log.log.record([mine, make_prediction("yours")])
        selector = Selector("subject", "me")
        found, _ = await erase(engine, HashKeys(), selector, ["salt"], ACTOR, spool=spool)
    assert found.last_without_cached_hash == mine.created_at


def test_what_waits_is_found_among_rejected_lines_too(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert not list(waiting_entries(spool))
    spool.mkdir()
    made = [make_prediction("a") for _ in range(4)]
    set_aside(spool, encode(Entry((made[2],))).rstrip(), "a reason")
    with (spool / REJECTED).open("ab") as rejected:
        rejected.write(b"no JSON\n")
    seal = SpoolSeal(spool).current
    sealed = Entry(seal.apply(made[:1]), seal=seal.id)
    lost = Entry((made[3],), seal="of a key that is gone")
    lines = b"no line\n", encode(sealed), encode(lost), encode(Entry((made[1],))), b'{"half'
    new_segment(spool, datetime.now(UTC)).write_bytes(b"".join(lines))
    assert list(waiting_entries(spool)) == [Entry((prediction,)) for prediction in made[:3]]


@pytest.mark.parametrize("value", ["mine", "v1", "v2"])
async def test_spooled_comparison_of_an_erased_text_or_half_is_not_stored(
    engine: AsyncEngine, tmp_path: Path, value: str
) -> None:
    now = datetime.now(UTC)
    v1, v2 = (make_prediction("mine", created_at=now, version=v) for v in ("v1", "v2"))
    ids = {"v1": str(v1.id), "v2": str(v2.id)}
    async with spooled_log(tmp_path / "spool") as log:
        await log.log.record([v1, v2], Comparison(new_id(now), now, v1, v2))
        await erased(engine, "prediction" if value in ids else "text", ids.get(value, value))
        await log.ship(engine)
    for table in ("predictions", "comparisons", "compared_texts", "rollups"):
        assert await rows(engine, f"SELECT 1 FROM {table}") == [], table


async def test_no_plain_hash_waits_in_a_spool(engine: AsyncEngine, tmp_path: Path) -> None:
    made = [make_prediction(sample) for sample in TEXTS]
    async with spooled_log(tmp_path / "spool") as log:
        await log.log.record(made)
        content = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
        for sample in TEXTS:
            digest = hashlib.sha256(sample.encode())
            assert digest.hexdigest().encode() not in content
            assert digest.digest() not in content
        await log.ship(engine)
    assert await left(engine) == {prediction.id for prediction in made}


async def test_export_has_all_of_a_text_and_nothing_else(engine: AsyncEngine) -> None:
    made = await everybody(engine)
    document = await export_data(engine, HashKeys(), Selector("text", "mine"), [])
    mine = [p for p in made.predictions if p.text == "mine"]
    assert {row["id"] for row in document["predictions"]} == {str(p.id) for p in mine}
    assert len(document["labels"]) == 4
    assert len(document["comparisons"]) == 2
    assert len(document["compared_texts"]) == 1
    assert document["assignments"] == []
    json.dumps(document)


async def test_export_of_a_subject_names_its_tests(engine: AsyncEngine) -> None:
    await everybody(engine)
    document = await export_data(engine, HashKeys(), Selector("subject", "ana"), [])
    [assignment] = document["assignments"]
    assert assignment["ab_salt"] == "salt"
    assert len(document["predictions"]) == 2
    nobody = await export_data(engine, HashKeys(), Selector("subject", "nobody"), [])
    assert nobody["predictions"] == nobody["assignments"] == []


async def test_log_of_admin_actions_keeps_the_erasure_and_not_the_person(
    engine: AsyncEngine,
) -> None:
    await everybody(engine)
    await erased(engine, "subject", "ana")
    found = await rows(engine, "SELECT author, origin, action, reason, details FROM admin_actions")
    assert [tuple(row[:4]) for row in found] == [
        ("ana", "ana's machine", "erase", "ticket 7"),
        ("ana", "ana's machine", "erased", "ticket 7"),
    ]
    assert found[1].details["predictions"] == 2
    assert "ana" not in json.dumps([row.details for row in found])


def test_log_of_admin_actions_cannot_be_changed(database_url: URL) -> None:
    run_sql(
        database_url,
        "INSERT INTO admin_actions (created_at, author, origin, action, reason, details)"
        " VALUES (now(), 'ana', 'here', 'set', 'because', '{}')",
    )
    run_sql(
        database_url,
        "INSERT INTO rollout_policies VALUES (1, now(), 'ana', 'set', 'because', '{}')",
    )
    for table in ("admin_actions", "rollout_policies"):
        for statement in (
            f"UPDATE {table} SET reason = ''",
            f"UPDATE {table} SET author = 'ben'",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="are never changed"):
                run_sql(database_url, statement)
        found = fetch(database_url, f"SELECT author, reason FROM {table}")
        assert found == [{"author": "ana", "reason": "because"}]


async def test_retention_of_each_kind(engine: AsyncEngine, database_url: URL) -> None:
    now = datetime.now(UTC)
    ages = (0, 2, 40)
    writer = PredictionWriter(engine, "full")
    await writer.write(
        [make_prediction(f"{age}", created_at=now - timedelta(days=age)) for age in ages]
    )
    async with engine.begin() as connection:
        for age in (30, 366, 500):
            await connection.execute(
                text(
                    "INSERT INTO admin_actions"
                    " (created_at, author, origin, action, reason, details)"
                    f" VALUES (now() - interval '{age} days', 'a', 'o', 's', '{age}', '{{}}')"
                )
            )
        for age in (1, 40):
            await connection.execute(
                text(f"INSERT INTO erasures (erased_at) VALUES (now() - interval '{age} days')")
            )
    maintenance = PartitionMaintenance(engine, retention_days=30, text_days=1, admin_log_days=400)
    await serve_before(engine, now.date())
    await maintenance.run(now.date())
    assert await rows(engine, "SELECT text FROM predictions ORDER BY id DESC") == [("0",), (None,)]
    assert await rows(engine, "SELECT reason FROM admin_actions ORDER BY 1") == [("30",), ("366",)]
    assert len(await rows(engine, "SELECT 1 FROM erasures")) == 1


async def test_text_that_comes_when_those_of_its_day_have_expired_is_not_stored(
    engine: AsyncEngine,
) -> None:
    """A spool may be shipped days later, when the texts of its day have been removed."""
    now = datetime.now(UTC)
    made = [make_prediction(f"{age}", created_at=now - timedelta(days=age)) for age in (3, 1, 0)]
    maintenance = PartitionMaintenance(engine, retention_days=30, text_days=2)
    await PredictionWriter(engine).write([made[0]])
    await maintenance.run(now.date())
    late = [make_prediction("late", created_at=made[0].created_at), *made[1:]]
    await LogWriter(engine, text_days=2).write([to_record(one, "full") for one in late])
    await maintenance.run(now.date())
    stored = await rows(engine, "SELECT text, text_sha256 IS NOT NULL FROM predictions ORDER BY id")
    assert stored == [(None, True), (None, True), ("1", True), ("0", True)]


# The command.


@pytest.fixture
def environment(
    database_url: URL, redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("REDIS_URL", redis_server)
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


def sentiment_privacy(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


async def stored(engine: AsyncEngine, redis: Redis) -> None:
    """A prediction of each of two texts, with their cached answers."""
    await PredictionWriter(engine).write([make_prediction("mine"), make_prediction("yours")])
    hashes = HashKeys()
    await hashes.refresh(engine)
    keys = CacheKeys(hashes.current_secret)
    for sample in ("mine", "yours"):
        await redis.set(keys.key("v1", "v1-revision", sample), "an answer")
    # Of a model that has answered trials alone, which nothing records.
    await redis.set(keys.key("v2", "tried", "mine", "windows"), "an answer")
    old = hashlib.sha256(b"mine").hexdigest()
    await redis.set(f"sentiment:2:v1:v1-revision:{old}", "an answer of an earlier release")


@pytest.mark.usefixtures("environment")
async def test_command_erases_from_postgresql_and_redis(engine: AsyncEngine, redis: Redis) -> None:
    await stored(engine, redis)
    await redis.set(b"sentiment:\xff", "of another program")
    run = sentiment_privacy_in_thread
    dry = await run("erase", "--text", "mine", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert json.loads(dry.stdout)["predictions"] == 1
    assert (await redis.dbsize(), len(await left(engine))) == (5, 2)
    refused = await run("erase", "--text", "mine", stdin="n\n")
    assert (refused.exit_code, len(await left(engine))) == (1, 2)
    done = await run("erase", "--text", "-", "--json", "--yes", stdin="mine\n")
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert (numbers["dry_run"], numbers["predictions"], numbers["cached_answers"]) == (False, 1, 3)
    assert (await redis.dbsize(), len(await left(engine))) == (2, 1)
    assert (await run("erase", "--text", "mine", "--yes")).exit_code == 0


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("kind", ["subject", "prediction"])
@pytest.mark.parametrize(("hours_ago", "kept"), [(1, 0), (25, 2)])
async def test_command_empties_the_cache_that_has_a_compared_text_by_a_newer_key(
    engine: AsyncEngine, redis: Redis, kind: Kind, hours_ago: int, kept: int
) -> None:
    """The log hashes the texts of two models by the key that their comparison began with."""
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    first, mine = compared("first", "", at), compared("mine", "me", at)
    await PredictionWriter(engine).write(first[:2], [first[2]])
    async with engine.begin() as connection:
        await add_key(connection)
    await PredictionWriter(engine).write(mine[:2], [mine[2]])
    hashes = HashKeys()
    await hashes.refresh(engine)
    for sample in ("mine", "yours"):
        key = CacheKeys(hashes.current_secret).key("v1", "v1-revision", sample)
        await redis.set(key, "an answer")
    await redis.set("not-of-the-cache", "stays")
    value = "me" if kind == "subject" else str(mine[0].id)
    done = await sentiment_privacy_in_thread("erase", f"--{kind}", value, "--yes", "--json")
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert (numbers["predictions"], numbers["cached_answers"]) == (2, 2 - kept)
    assert await redis.dbsize() == 1 + kept


def compared(sample: str, subject: str, at: datetime) -> tuple[Prediction, Prediction, Comparison]:
    """A text's predictions by both versions, and their comparison."""
    key = subject_digest(subject, COMPARISON_SALT) if subject else None
    v1, v2 = (
        replace(make_prediction(sample, created_at=at, version=version), subject_key=key)
        for version in ("v1", "v2")
    )
    return v1, v2, Comparison(new_id(at), at, v1, v2)


async def sentiment_privacy_in_thread(*arguments: str, stdin: str | None = None) -> Result:
    return await asyncio.to_thread(sentiment_privacy, *arguments, stdin=stdin)


async def test_command_says_that_redis_is_away(
    engine: AsyncEngine, redis: Redis, environment: pytest.MonkeyPatch
) -> None:
    await stored(engine, redis)
    environment.setenv("REDIS_URL", "redis://127.0.0.1:9")
    get_settings.cache_clear()
    done = await sentiment_privacy_in_thread("erase", "--text", "mine", "--yes", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["cached_answers"] is None
    assert "expire after CACHE_TTL_SECONDS" in done.stderr
    assert len(await left(engine)) == 1


async def test_command_says_that_a_key_is_missing(
    engine: AsyncEngine, environment: pytest.MonkeyPatch
) -> None:
    await HashKeys([b"k" * 32]).refresh(engine)
    done = await sentiment_privacy_in_thread("export", "--subject", "ana")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["unknown_hash_keys"] == [2]
    environment.setenv("LOG_HASH_KEY", "k" * 32)
    get_settings.cache_clear()
    assert (await sentiment_privacy_in_thread("export", "--subject", "ana")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["erase"], "Give one of --subject"),
        (["erase", "--text", "a", "--subject", "b"], "Give one of --subject"),
        (["export", "--prediction", "7"], "is no id of a prediction"),
        (["export", "--text", " "], "the text cannot have been sent"),
        (["export", "--subject", "x" * 201], "the subject cannot have been sent"),
        (["erase", "--text", "a\x00"], "the text cannot have been sent"),
    ],
)
def test_wrong_use_is_named(arguments: list[str], message: str) -> None:
    done = sentiment_privacy(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_database_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@/nothing?host={tmp_path}")
    get_settings.cache_clear()
    done = sentiment_privacy("export", "--text", "a")
    get_settings.cache_clear()
    assert done.exit_code == 1
    assert "Run the command again" in done.stderr


@pytest.mark.usefixtures("environment")
def test_command_makes_another_key(database_url: URL) -> None:
    done = sentiment_privacy("rotate-key", "--reason", "a leak")
    assert done.exit_code == 0, done.output
    assert scalar(database_url, "SELECT max(id) FROM log_hash_keys") == 2
    [action] = fetch(database_url, "SELECT action, reason, details FROM admin_actions")
    assert (action["action"], action["reason"]) == ("rotate_key", "a leak")


async def test_command_names_the_policies_that_override_a_subject(
    engine: AsyncEngine, environment: pytest.MonkeyPatch
) -> None:
    del environment
    async with engine.begin() as connection:
        policy = json.dumps({"salt": "other", "overrides": {"ana": "v2"}}).replace(":", "\\:")
        await connection.execute(
            text(f"INSERT INTO rollout_policies VALUES (1, now(), 'a', 'set', '', '{policy}')")
        )
    done = await sentiment_privacy_in_thread("erase", "--subject", "ana", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["policies_with_an_override"] == [1]
    assert "remove the override from the active policy" in done.stderr
