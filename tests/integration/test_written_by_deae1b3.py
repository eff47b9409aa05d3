"""The database and the spool that commit deae1b3 wrote are read as they were written."""

from __future__ import annotations

import asyncio
import filecmp
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.feedback.store import FeedbackStore
from analytics.hash_conversion import HashConversion
from analytics.hash_keys import FIRST_KEY, HashKeys
from analytics.log.records import decode, encode
from analytics.log.shipper import Shipper
from analytics.log.spool import Spool
from analytics.log.writer import LogWriter
from analytics.partition_maintenance import PartitionMaintenance
from analytics.reader import Reader
from analytics.recent import recent
from analytics.review.draw import ReviewDraws
from analytics.scope import Scope
from analytics.summary import summary
from analytics.time_range import TimeRange
from core.postgres import create_engine
from core.types import DesiredModel, Sentiment, Version
from rollout.admin import RolloutAdmin
from rollout.bucketing import assign_subject, assign_text, is_shadowed
from rollout.controller import RolloutController
from rollout.live import LivePolicy
from rollout.policy import RolloutPolicy
from rollout.record import STORED, PolicyRecord
from rollout.store import PolicyStore
from stats.arm_metrics import EvidenceQuery, RolloutMetrics
from tests.database import fetch, run_sql, scalar
from tests.unit.rollout.test_guardrails import measured
from tests.waiting import until
from tests.written_by_deae1b3 import EXPECTED, ROLLOUT_FILE, SPOOL, TAGS, restore, rounded
from web.read_api.analytics import analytics_router

SPAN = TimeRange(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))
SPAN_WITH_SPOOL = TimeRange(SPAN.since, datetime(2026, 3, 5, tzinfo=UTC))
CONFIGURED = PolicyRecord(0, SPAN.since, "settings", "set", "as configured", RolloutPolicy())
NEWEST = 11
# The tables' own columns, with what their foreign keys stand for. That commit read one window of
# each text.
PREDICTIONS = """
    SELECT to_jsonb(p) - 'model_version_id' - 'experiment_id' - 'windows' - 'arm_group'
        || jsonb_build_object('version', m.version, 'revision', m.revision, 'engine', m.engine,
            'salt', e.salt, 'v2_percent', e.v2_percent) AS row
    FROM predictions p JOIN model_versions m ON m.id = p.model_version_id
    LEFT JOIN experiments e ON e.id = p.experiment_id WHERE p.windows = 1 ORDER BY p.id"""
COMPARISONS = "SELECT to_jsonb(c) AS row FROM comparisons c ORDER BY id"
# Each day has a partition of its own, which is left out here.
SCHEMA = (
    """SELECT table_name, column_name, data_type, is_nullable, is_identity, collation_name
    FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name NOT LIKE 'predictions!_2%' ESCAPE '!'
    ORDER BY table_name, ordinal_position""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conparentid = 0 AND contype <> 'n'
    AND conrelid::regclass::text NOT LIKE 'predictions!_2%' ESCAPE '!' ORDER BY 1, 2""",
    """SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename NOT LIKE 'predictions!_2%' ESCAPE '!' ORDER BY 1""",
)
EXACT_PERCENTILES = """
    SELECT version, cache_hit,
        percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms)
    FROM predictions JOIN model_versions ON model_versions.id = model_version_id
    WHERE created_at >= '2026-03-01Z' AND created_at < '2026-03-03Z'
    GROUP BY version, cache_hit ORDER BY version, cache_hit"""
# How PostgreSQL begins bytes in hexadecimal.
BYTEA = "\\x"
FAILURES = (
    "SELECT to_jsonb(f) - 'model_version_id' - 'arm_group' AS row FROM failures f ORDER BY id"
)


@pytest.fixture
def restored(postgres_server: URL) -> Iterator[URL]:
    name = f"restored_{uuid4().hex}"
    yield restore(postgres_server, name)
    run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def old(restored: URL) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(restored, pool_size=5, timeout_seconds=5)
    yield engine
    await engine.dispose()


def live_policy(
    engine: AsyncEngine, file: Path, wanted: list[DesiredModel] | None = None
) -> LivePolicy:
    """`wanted` collects the models that the runner of v2 is told to hold."""

    def in_force(policy: RolloutPolicy, _as_of: float) -> None:
        if wanted is not None:
            wanted.append(policy.desired_model("v2"))

    return LivePolicy(PolicyStore(engine), CONFIGURED, file, in_force)


def rollout_admin(live: LivePolicy, store: PolicyStore) -> RolloutAdmin:
    async def evidence(
        query: EvidenceQuery, champion: Version, revisions: Mapping[Version, str]
    ) -> RolloutMetrics:
        return measured()

    controller = RolloutController(live, store, evidence, dict)
    return RolloutAdmin(live, store, controller)


def stored_form(record: PolicyRecord) -> dict[str, Any]:
    """What the store would write of `record`, with its time in UTC."""
    return with_time(STORED.dump_python(record, mode="json", by_alias=True))


def with_time(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"created_at": datetime.fromisoformat(row["created_at"])}


def analytics_client(engine: AsyncEngine) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(analytics_router(lambda: Reader(engine), lambda: ReviewDraws(engine)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics")


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    """The JSON reply about `SPAN`, or about what `parameters` say."""
    span = {"since": SPAN.since.isoformat(), "until": SPAN.until.isoformat()}
    named = {name: value for name, value in (span | parameters).items() if value is not None}
    reply = await client.get(f"/analytics/{path}", params=named)
    assert reply.status_code == 200, reply.text
    return reply.json()


def comparable(value: Any) -> Any:
    """`value` without the sentences of verdicts, whose wording is free, and without percentiles.

    A percentile of deae1b3 was the value of another rank, with few predictions another one's.
    """
    if isinstance(value, dict):
        return {
            key: comparable(item)
            for key, item in value.items()
            if key != "sentence" and not re.search(r"p\d\d_ms$", key)
        }
    return [comparable(item) for item in value] if isinstance(value, list) else value


def as_far_as_known(value: Any, expected: Any) -> Any:
    """`value` without the fields that came after deae1b3."""
    if isinstance(value, dict):
        return {key: as_far_as_known(value[key], item) for key, item in expected.items()}
    if isinstance(value, list) and len(value) == len(expected):
        return [as_far_as_known(*pair) for pair in zip(value, expected, strict=True)]
    return value


def rows(url: URL, query: str) -> list[Any]:
    return [json.loads(found["row"]) for found in fetch(url, query)]


# The schema.


def test_restored_dump_has_the_newest_schema(restored: URL, database_url: URL) -> None:
    for query in SCHEMA:
        assert fetch(restored, query) == fetch(database_url, query)


# The rollout policies.


async def test_every_policy_is_read_as_it_was_written(old: AsyncEngine) -> None:
    records = await PolicyStore(old).history(50)
    expected = [with_time(row) for row in EXPECTED["policies"]]
    assert [stored_form(record) for record in reversed(records)] == expected
    assert [record.version for record in records] == list(range(NEWEST, 0, -1))


async def test_history_is_read_page_by_page(old: AsyncEngine) -> None:
    page = await PolicyStore(old).history(3, before=9)
    assert [(record.version, record.action, record.author) for record in page] == [
        (8, "reload", "ana"), (7, "promote", "ana"), (6, "roll_back", "ben"),
    ]  # fmt: skip


async def test_newest_policy_names_the_promoted_model(old: AsyncEngine) -> None:
    newest = await PolicyStore(old).newest()
    assert newest is not None
    assert newest.policy.desired_model("v2") == DesiredModel(TAGS["promoted"], 10)
    assert newest.policy.desired_model("v1") == DesiredModel(None, 9)
    assert newest.policy.champion == "v2"
    assert TAGS["promoted"] != TAGS["v2"]


@pytest.mark.parametrize("version", EXPECTED["dealt"])
async def test_subjects_and_texts_keep_their_versions(old: AsyncEngine, version: str) -> None:
    record = await PolicyStore(old).get(int(version))
    assert record is not None
    policy, expected = record.policy, EXPECTED["dealt"][version]
    subjects = {subject: assign_subject(policy, subject) for subject in expected["subjects"]}
    assert {subject: dealt.version for subject, dealt in subjects.items()} == expected["subjects"]
    keys = {subject: subjects[subject].subject_key.hex() for subject in expected["keys"]}
    assert keys == expected["keys"]
    assert {text: assign_text(policy, text) for text in expected["texts"]} == expected["texts"]
    assert [text for text in expected["texts"] if is_shadowed(policy, text)] == expected["shadowed"]


async def test_an_old_policy_can_be_restored(old: AsyncEngine, tmp_path: Path) -> None:
    store = PolicyStore(old)
    live = live_policy(old, tmp_path / "rollout.json")
    outcome = await rollout_admin(live, store).change(
        "roll_back", base_version=NEWEST, author="ana", reason="as it was", to_version=2
    )
    written = stored_form(outcome.record)["policy"]
    # Policy 2 named the promoted model too, so the runner of v2 keeps it without a reload.
    expected = EXPECTED["policies"][1]["policy"]
    assert written == expected | {"model_wishes": {"v1": 9, "v2": 10}}
    assert await store.newest() == outcome.record


async def test_live_policy_goes_by_the_database(old: AsyncEngine, tmp_path: Path) -> None:
    wanted: list[DesiredModel] = []
    live = live_policy(old, tmp_path / "rollout.json", wanted)
    await live.refresh()
    assert (live.version, wanted[-1]) == (NEWEST, DesiredModel(TAGS["promoted"], 10))
    written = json.loads((tmp_path / "rollout.json").read_bytes())
    assert written == json.loads(ROLLOUT_FILE.read_bytes())


async def test_without_postgresql_the_promoted_model_stays_promoted(tmp_path: Path) -> None:
    away = URL.create("postgresql+asyncpg", username="nobody", query={"host": str(tmp_path)})
    engine = create_engine(away, pool_size=2, timeout_seconds=1)
    file = tmp_path / "rollout.json"
    shutil.copy(ROLLOUT_FILE, file)
    wanted: list[DesiredModel] = []
    live = live_policy(engine, file, wanted)
    live.start()
    try:
        await until(lambda: bool(wanted))
        assert wanted[0] == DesiredModel(TAGS["promoted"], 10)
        assert stored_form(live.record) == with_time(EXPECTED["policies"][-1])
    finally:
        await live.stop()
        await engine.dispose()
    assert filecmp.cmp(file, ROLLOUT_FILE, shallow=False)


# The prediction log and its rollups.


async def test_analytics_reply_with_the_same_numbers(old: AsyncEngine) -> None:
    async with analytics_client(old) as client:
        replies = {
            "summary": await get(client, "summary"),
            "summary_of_v2": await get(client, "summary", version="v2"),
            "sentiment_distribution": await get(client, "sentiment-distribution"),
            "latency": await get(client, "latency"),
            "confidence": await get(client, "confidence"),
            "timeseries": await get(client, "timeseries", bucket="day"),
            "ab": await get(client, "ab", since=None),
            "recent": await get(client, "recent", limit=200),
        }
    # deae1b3 called the randomised comparison "routed".
    replies["ab"]["routed"] = replies["ab"].pop("randomised")
    async with old.connect() as connection:
        exact = (await connection.execute(text(EXACT_PERCENTILES))).all()
    for row, (version, cache_hit, percentiles) in zip(
        replies["latency"]["percentiles"], exact, strict=True
    ):
        assert (row["version"], row["cache_hit"]) == (version, cache_hit)
        assert [row["p50_ms"], row["p95_ms"], row["p99_ms"]] == pytest.approx(percentiles, rel=0.01)
    expected = EXPECTED["analytics"]
    for name, reply in replies.items():
        known = comparable(expected[name])
        assert rounded(as_far_as_known(comparable(reply), known)) == rounded(known), name
    # Counted by hand.
    assert replies["summary"]["total_predictions"] == 2 * (10 + 6 + 17 + 2 * 8) + 1
    assert replies["summary"]["failures"] == 2 * (3 + 20)
    assert (replies["ab"]["paired"]["pairs"], replies["ab"]["routed"]["v2_percent"]) == (7, 60)


async def test_recent_predictions_are_read_page_by_page(old: AsyncEngine) -> None:
    found: list[str] = []
    before: UUID | None = None
    while True:
        page = await recent(Reader(old), Scope(SPAN), 40, before)
        found += [str(prediction.id) for prediction in page.predictions]
        before = page.next_before
        if before is None:
            break
    whole = EXPECTED["analytics"]["recent"]["predictions"]
    assert found == [prediction["id"] for prediction in whole]


async def test_old_predictions_take_labels(old: AsyncEngine, restored: URL, tmp_path: Path) -> None:
    labelled = "SELECT sum(labelled)::int FROM label_rollups WHERE bucket_seconds = 86400"
    unlabelled = (
        "SELECT id FROM predictions WHERE id NOT IN (SELECT prediction_id FROM feedback) LIMIT 1"
    )
    chosen = await asyncio.to_thread(scalar, restored, unlabelled)
    before = await asyncio.to_thread(scalar, restored, labelled)
    feedback = FeedbackStore(old, tmp_path)
    labels: list[Sentiment] = ["positive", "negative"]
    for label in labels:
        await feedback.add(chosen, label)
    assert await asyncio.to_thread(scalar, restored, labelled) == before + 1
    kept = f"SELECT label FROM feedback WHERE prediction_id = '{chosen}' ORDER BY id"
    assert [row["label"] for row in await asyncio.to_thread(fetch, restored, kept)] == labels


async def test_old_days_are_dropped_when_their_time_is_over(old: AsyncEngine) -> None:
    maintenance = PartitionMaintenance(old, retention_days=30)
    assert await maintenance.run(date(2026, 3, 20)) == []
    # No service ran in between.
    assert await maintenance.run(date(2026, 3, 31)) == []
    assert await maintenance.run(date(2026, 4, 1)) == [date(2026, 3, 1)]
    reply = await summary(Reader(old), Scope(SPAN))
    by_day = EXPECTED["analytics"]["timeseries"]["points"]
    second = [point for point in by_day if point["time"] == "2026-03-02T00:00:00Z"]
    assert reply.total_predictions == sum(point["predictions"] for point in second)


# The spool.


async def ship(engine: AsyncEngine, folder: Path) -> None:
    stopping = asyncio.Event()
    stopping.set()
    await Shipper(folder, LogWriter(engine), poll_seconds=0.01).run(stopping)


def keyed(row: dict[str, Any], keys: HashKeys) -> dict[str, Any]:
    """A row of deae1b3 as it is after its hashes got the first key."""

    def hash_of(column: str) -> str | None:
        if row[column] is None:
            return None
        digest = bytes.fromhex(row[column].removeprefix(BYTEA))
        return BYTEA + keys.hash(digest, FIRST_KEY).hex()

    hashes = {column: hash_of(column) for column in ("text_sha256", "subject_key")}
    return row | hashes | {"hash_key_id": FIRST_KEY if any(hashes.values()) else None}


async def assert_shipped(engine: AsyncEngine, url: URL) -> None:
    # deae1b3 stored the hashes without a key, also those of these lines.
    await HashConversion(engine).convert_all()
    keys = HashKeys()
    await keys.refresh(engine)
    expected = EXPECTED["shipped"] | {
        "predictions": [keyed(row, keys) for row in EXPECTED["shipped"]["predictions"]]
    }
    for name, query in (
        ("predictions", PREDICTIONS), ("comparisons", COMPARISONS), ("failures", FAILURES),
    ):  # fmt: skip
        assert await asyncio.to_thread(rows, url, query) == expected[name], name
    async with analytics_client(engine) as client:
        reply = await get(client, "summary", until=SPAN_WITH_SPOOL.until.isoformat())
    assert rounded(reply) == rounded(expected["summary"])


def test_every_line_is_read_whole_and_would_be_written_again() -> None:
    # The reader passes over fields that it does not know, so none may be missing here.
    lines = [
        line
        for segment in sorted(SPOOL.glob("*.ndjson"))
        for line in segment.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    assert len(lines) == 15
    assert [encode(decode(line)) for line in lines] == lines
    assert [decode(line).trace_parent for line in lines[:-1]] == [None] * 14
    assert decode(lines[-1]).trace_parent == (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )


async def test_spool_of_a_killed_process_is_shipped_once(
    old: AsyncEngine, restored: URL, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    for _ in range(2):  # the second time is a crash before the segments were deleted
        shutil.copytree(SPOOL, folder)
        await ship(old, folder)
        await assert_shipped(old, restored)
        assert list(folder.glob("*.ndjson")) == []
        shutil.rmtree(folder)


async def test_rejected_lines_stay(old: AsyncEngine, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(SPOOL, folder)
    before = (folder / "rejected.jsonl").read_bytes()
    await ship(old, folder)
    assert (folder / "rejected.jsonl").read_bytes() == before
    # A line that nobody can read joins those that are there.
    (folder / "01a21903-0000-7000-8000-000000000000.ndjson").write_bytes(b"{}x\n")
    await ship(old, folder)
    after = (folder / "rejected.jsonl").read_bytes()
    assert after.startswith(before)
    [added] = after.removeprefix(before).splitlines()
    assert json.loads(added)["line"] == "{}x"
    assert [set(json.loads(line)) for line in after.splitlines()] == [{"at", "reason", "line"}] * 3


async def test_a_new_process_takes_the_spool_over(
    old: AsyncEngine, restored: URL, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(SPOOL, folder)
    segments = {path.name for path in folder.glob("*.ndjson")}
    spool = Spool(folder, max_bytes=1 << 30, durability="page_cache", when_full="refuse")
    spool.start()
    await spool.close()
    assert list(folder.glob("*.new")) == []
    assert {path.name for path in folder.glob("*.ndjson")} == segments
    await ship(old, folder)
    await assert_shipped(old, restored)
