"""Partitions in a real PostgreSQL are created ahead, filled, and dropped with their rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import URL, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.expired_days import delete_rows_of_day
from analytics.expired_texts import ExpiredTexts
from analytics.feedback.store import FeedbackStore
from analytics.hash_keys import HashKeys
from analytics.log.records import to_record
from analytics.log.writer import LogWriter
from analytics.partition_maintenance import DAYS_AHEAD, PartitionMaintenance
from analytics.partitions import gaps, partition_days, partitions
from analytics.privacy.erase import Actor, erase
from analytics.privacy.selection import Selector
from analytics.review.draw import ReviewDraws
from analytics.time_range import TimeRange
from core.postgres import create_engine
from core.types import (
    VERSIONS,
    Assignment,
    Comparison,
    Experiment,
    Failure,
    ModelVersion,
    Prediction,
    Split,
)
from core.uuid7 import first_id, new_id
from tests.database import run_sql
from tests.integration.predictions import PredictionWriter, make_prediction, serve_before
from tests.unit.fakes import counter
from tests.waiting import until

MIDNIGHT = datetime(2026, 3, 5, tzinfo=UTC)
TODAY = MIDNIGHT.date()
TABLES = (
    "predictions", "comparisons", "feedback", "failures", "rollups", "label_rollups",
    "failure_rollups", "compared_texts", "comparison_rollups", "assignments", "assignment_rollups",
    "review_draws", "review_items",
)  # fmt: skip


async def days(engine: AsyncEngine) -> list[date]:
    async with engine.connect() as connection:
        return await partition_days(connection)


async def counts(engine: AsyncEngine) -> dict[str, int]:
    async with engine.connect() as connection:
        return {
            table: (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in TABLES
        }


async def write(engine: AsyncEngine, made: Sequence[Prediction]) -> None:
    await PredictionWriter(engine).write(made)


NO_SPOOL = Path("/nowhere")


async def test_the_writer_creates_missing_partitions(engine: AsyncEngine) -> None:
    assert await days(engine) == []
    edges = [MIDNIGHT - timedelta(microseconds=1), MIDNIGHT, MIDNIGHT + timedelta(days=400)]
    await write(engine, [make_prediction(created_at=at) for at in edges])
    assert await days(engine) == [edge.date() for edge in edges]
    for edge in edges:
        async with engine.connect() as connection:
            stored = await connection.scalars(
                text(f"SELECT created_at FROM predictions_{edge:%Y%m%d}")
            )
            assert stored.all() == [edge]


async def test_concurrent_writers_create_a_partition_once(engine: AsyncEngine) -> None:
    await asyncio.gather(*(write(engine, [make_prediction(created_at=MIDNIGHT)]) for _ in range(8)))
    assert await days(engine) == [TODAY]
    assert (await counts(engine))["predictions"] == 8


async def test_an_id_that_differs_from_the_time_is_refused(engine: AsyncEngine) -> None:
    made = make_prediction(created_at=MIDNIGHT)
    await write(engine, [made])
    with pytest.raises(IntegrityError, match="ck_predictions_id"):
        async with engine.begin() as connection:
            await connection.execute(
                text("UPDATE predictions SET created_at = created_at + interval '1.1 s'")
            )


async def test_partitions_are_created_ahead_once(engine: AsyncEngine) -> None:
    maintenance = PartitionMaintenance(engine, retention_days=0)
    for _ in range(2):
        assert await maintenance.run(TODAY) == []
        assert await days(engine) == [TODAY + timedelta(days=n) for n in range(DAYS_AHEAD + 1)]


async def test_expired_days_are_dropped_with_their_rows_in_every_table(engine: AsyncEngine) -> None:
    model = ModelVersion("v1", "v1-revision", "fake")
    test = Experiment(Split("salt", 50), model, model._replace(version="v2"))
    times = [
        MIDNIGHT - timedelta(days=5),
        MIDNIGHT - timedelta(days=3, microseconds=1),
        MIDNIGHT - timedelta(days=3),
    ]
    old, edge, kept = (
        replace(
            make_prediction(f"{at}", created_at=at),
            assignment=Assignment(test, at.isoformat().encode()),
        )
        for at in times
    )
    # The predictions of the first comparison lie on different days.
    comparisons = [
        Comparison(new_id(two.created_at), two.created_at, one, two)
        for one, two in ((old, edge), (kept, make_prediction(created_at=MIDNIGHT)))
    ]
    failures = [Failure(new_id(at), at, "/predict", model, 1) for at in times]
    await PredictionWriter(engine).write(
        [old, edge, kept, comparisons[1].v2], comparisons, failures
    )
    # The second draw ends after midnight, and has predictions of both days.
    for prediction in (old, edge):
        until = prediction.created_at + timedelta(seconds=1)
        span = TimeRange(prediction.created_at, until)
        await ReviewDraws(engine).draw("v1", span, until + timedelta(minutes=1))
    feedback = FeedbackStore(engine, NO_SPOOL)
    for prediction in (old, edge, kept):
        await feedback.add(prediction.id, "positive")
    assert await counts(engine) == {
        "predictions": 4, "comparisons": 2, "feedback": 4, "failures": 3, "rollups": 12,
        "label_rollups": 12, "failure_rollups": 9, "compared_texts": 2, "comparison_rollups": 6,
        "assignments": 3, "assignment_rollups": 9, "review_draws": 2, "review_items": 3,
    }  # fmt: skip
    await serve_before(engine, TODAY)
    dropped = await PartitionMaintenance(engine, retention_days=3).run(TODAY)
    assert dropped == [old.created_at.date(), edge.created_at.date()]
    assert await counts(engine) == {
        "predictions": 2, "comparisons": 1, "feedback": 2, "failures": 1, "rollups": 6,
        "label_rollups": 6, "failure_rollups": 3, "compared_texts": 1, "comparison_rollups": 4,
        "assignments": 1, "assignment_rollups": 5, "review_draws": 1, "review_items": 1,
    }  # fmt: skip
    assert await PartitionMaintenance(engine, retention_days=3).run(TODAY) == []


@contextmanager
def changed_rows(engine: AsyncEngine, table: str) -> Iterator[list[int]]:
    """How many rows of a table each statement changes meanwhile."""
    changed: list[int] = []

    def note(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith((f"DELETE FROM {table}", f"UPDATE {table}")):
            changed.append(cursor.rowcount)

    event.listen(engine.sync_engine, "after_cursor_execute", note)
    yield changed
    event.remove(engine.sync_engine, "after_cursor_execute", note)


async def test_day_of_many_rows_is_deleted_some_at_a_time(engine: AsyncEngine) -> None:
    """One statement would not end in its time, and would be tried again for ever."""
    old = MIDNIGHT - timedelta(days=5)
    for day in (old, MIDNIGHT):
        at = day + timedelta(hours=1)
        made = [make_prediction(created_at=at, version=v) for v in VERSIONS for _ in range(35)]
        pairs = zip(made[:35], made[35:], strict=True)
        compared = [Comparison(new_id(at), at, one, two) for one, two in pairs]
        await PredictionWriter(engine).write(made, compared)
    with changed_rows(engine, "comparisons") as deleted:
        await delete_rows_of_day(engine, old.date(), rows_at_a_time=10)
    assert max(deleted) == 10
    assert sum(deleted) == 35
    left = await counts(engine)
    assert (left["predictions"], left["comparisons"]) == (140, 35)


async def test_texts_of_a_day_are_removed_some_at_a_time(engine: AsyncEngine) -> None:
    old = MIDNIGHT - timedelta(days=5)
    for day in (old, MIDNIGHT):
        made = [make_prediction(f"{n}", created_at=day + timedelta(hours=1)) for n in range(35)]
        await LogWriter(engine).write([to_record(one, "full") for one in made], [])
    with changed_rows(engine, "predictions") as removed:
        await ExpiredTexts(engine, rows_at_a_time=10).remove(TODAY)
        # Also where no text is left, no statement has to look through all of the day.
        await ExpiredTexts(engine, rows_at_a_time=10).remove(TODAY)
    assert removed == [10, 10, 10, 5, 0, 0, 0, 0]
    async with engine.connect() as connection:
        left = await connection.scalars(text("SELECT created_at FROM predictions WHERE text <> ''"))
        assert {at.date() for at in left} == {TODAY}


@pytest.mark.parametrize("jump", [4, 5, 7, 10, 11, 12, 400])
async def test_clock_that_jumped_drops_nothing_for_a_day(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture, jump: int
) -> None:
    """Nor does a service that stood still for so long; a day later it does."""
    await PredictionWriter(engine, "full").write([make_prediction(created_at=MIDNIGHT)])
    maintenance = PartitionMaintenance(engine, retention_days=3, text_days=1)
    assert await maintenance.run(TODAY) == []
    later = TODAY + timedelta(days=jump)
    for _ in range(2):  # a restart makes no difference, nor do predictions by the wrong clock
        held = PartitionMaintenance(engine, retention_days=3, text_days=1)
        assert await held.run(later) == []
        await write(engine, [make_prediction(created_at=MIDNIGHT + jump * DAY)])
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(text) FROM predictions")) == 1
    assert f"no service ran on the day before today, {later}" in caplog.text
    assert (await counts(engine))["predictions"] == 3
    dropped = await maintenance.run(later + DAY)
    ahead = [TODAY + n * DAY for n in range(DAYS_AHEAD + 1)]
    assert dropped == [day for day in ahead if day < later + DAY - 3 * DAY]
    assert (await counts(engine))["predictions"] == 2


@pytest.mark.parametrize(
    ("own", "of_server", "dropped"),
    [(10, 0, []), (0, 10, []), (10, 2, [-3, -2]), (1, 0, []), (4, 4, [-3, -2, -1, 0])],
)
async def test_day_is_dropped_if_it_is_old_by_the_clocks_of_this_machine_and_of_postgresql(
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    own: int,
    of_server: int,
    dropped: list[int],
) -> None:
    """One machine whose clock is days ahead dropped what all others keep."""
    made = [make_prediction(created_at=MIDNIGHT + n * DAY) for n in range(-3, 1)]
    await PredictionWriter(engine, "full").write(made)
    maintenance = PartitionMaintenance(engine, retention_days=3, text_days=3)
    await serve_before(engine, TODAY + min(own, of_server) * DAY)
    days = await maintenance.run(TODAY + own * DAY, TODAY + of_server * DAY)
    assert days == [TODAY + n * DAY for n in dropped]
    texts = "SELECT count(*) FROM predictions WHERE text IS NOT NULL"
    async with engine.connect() as connection:
        assert (await connection.execute(text(texts))).scalar_one() == 4 - len(dropped)
    warned = f"it is {TODAY + own * DAY} by the clock of this machine" in caplog.text
    assert warned == (abs(own - of_server) > 1)


async def test_no_day_is_dropped_without_retention(engine: AsyncEngine) -> None:
    await write(engine, [make_prediction(created_at=MIDNIGHT - timedelta(days=4_000))])
    assert await PartitionMaintenance(engine, retention_days=0).run(TODAY) == []
    assert (await counts(engine))["predictions"] == 1


async def test_concurrent_maintenance_drops_each_day_once(engine: AsyncEngine) -> None:
    await serve_before(engine, TODAY)
    for n in range(4, 8):
        await write(engine, [make_prediction(created_at=MIDNIGHT - timedelta(days=n))])
    dropped = await asyncio.gather(
        *(PartitionMaintenance(engine, retention_days=3).run(TODAY) for _ in range(3)),
        *(write(engine, [make_prediction(created_at=MIDNIGHT)]) for _ in range(2)),
    )
    days_dropped = [day for result in dropped if result for day in result]
    assert sorted(days_dropped) == [TODAY - timedelta(days=n) for n in range(7, 3, -1)]
    assert (await counts(engine))["predictions"] == 2


async def until_waiting(connection: AsyncConnection, number: int) -> None:
    """Return once so many transactions wait for locks in this database."""
    statement = text(
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with asyncio.timeout(10):
        while (await connection.scalar(statement) or 0) < number:
            await connection.execute(text("SELECT pg_sleep(0.01)"))


async def test_day_is_dropped_while_all_who_write_wait(engine: AsyncEngine) -> None:
    old, labelled, erased = (
        make_prediction(f"{days}", created_at=MIDNIGHT - timedelta(days=days)) for days in (9, 1, 0)
    )
    await serve_before(engine, TODAY)
    await write(engine, [old, labelled, erased])
    selector, actor = Selector("prediction", str(erased.id)), Actor("a", "test", "asked for")
    tasks: list[asyncio.Future[Any]] = []
    async with engine.connect() as holder, asyncio.timeout(20):
        # Whoever drops has the writers' lock then, and waits here.
        await holder.execute(text("LOCK TABLE review_draws IN SHARE MODE"))
        maintenance = PartitionMaintenance(engine, retention_days=3)
        tasks.append(asyncio.create_task(maintenance.run(TODAY)))
        await until_waiting(holder, 1)
        others = (
            FeedbackStore(engine, NO_SPOOL).add(labelled.id, "positive"),
            write(engine, [make_prediction("later", created_at=MIDNIGHT)]),
            erase(engine, HashKeys(), selector, [], actor),
        )
        tasks += map(asyncio.ensure_future, others)
        await until_waiting(holder, len(tasks))
        await holder.rollback()
        assert (await asyncio.gather(*tasks))[0] == [old.created_at.date()]
    found = await counts(engine)
    assert (found["predictions"], found["feedback"]) == (2, 1)


async def test_a_late_prediction_of_a_dropped_day_stays_until_the_next_run(
    engine: AsyncEngine,
) -> None:
    maintenance, late = (
        PartitionMaintenance(engine, retention_days=3),
        MIDNIGHT - timedelta(days=10),
    )
    await serve_before(engine, TODAY)
    for _ in range(2):
        await write(engine, [make_prediction(created_at=late)])
        assert (await counts(engine))["predictions"] == 1
        assert await maintenance.run(TODAY) == [late.date()]
        assert await counts(engine) == dict.fromkeys(TABLES, 0)


async def test_partition_with_a_foreign_name_is_left_alone(engine: AsyncEngine) -> None:
    """As an operator made it, or moved it to another schema."""
    names = ("predictions_before_2020", "predictions_2026115", "archive.predictions_20190101")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA archive"))
        for number, name in enumerate(names):
            await connection.execute(
                text(
                    f"CREATE TABLE {name} PARTITION OF predictions FOR VALUES FROM "
                    f"('00000000-000{number}-7000-8000-000000000000') TO "
                    f"('00000000-000{number + 1}-7000-8000-000000000000')"
                )
            )
    old = MIDNIGHT - timedelta(days=10)
    await write(engine, [make_prediction(created_at=old)])
    await serve_before(engine, TODAY)
    assert await PartitionMaintenance(engine, retention_days=3).run(TODAY) == [old.date()]
    async with engine.connect() as connection:
        for name in names:
            await connection.execute(text(f"SELECT FROM {name}"))


def uuid_of(at: datetime) -> str:
    return str(first_id(at))


async def partition(engine: AsyncEngine, name: str, bounds: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE {name} PARTITION OF predictions {bounds}"))


async def rows_of(engine: AsyncEngine, name: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0)


def between(first: datetime, end: datetime) -> str:
    return f"FOR VALUES FROM ('{uuid_of(first)}') TO ('{uuid_of(end)}')"


HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOON = MIDNIGHT + 12 * HOUR
# Each: what an operator made, and where the predictions of noon and of the next day lie.
OPERATORS = {
    "default": ({"rest": "DEFAULT"}, ["predictions_20260305", "predictions_20260306"]),
    "month": (
        {"march": between(MIDNIGHT - 4 * DAY, MIDNIGHT + 27 * DAY)}, ["march", "march"],
    ),
    "month named as ours": (
        {"predictions_20260301": between(MIDNIGHT - 4 * DAY, MIDNIGHT + 27 * DAY)},
        ["predictions_20260301", "predictions_20260301"],
    ),
    "all": ({"everything": "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"}, ["everything"] * 2),
    "past": (
        {"past": f"FOR VALUES FROM (MINVALUE) TO ('{uuid_of(NOON + HOUR)}')"},
        ["past", "predictions_20260306"],
    ),
    "future": (
        {"future": f"FOR VALUES FROM ('{uuid_of(NOON + HOUR)}') TO (MAXVALUE)"},
        ["predictions_20260305", "future"],
    ),
    "another schema": (
        {"archive.predictions_20260305": between(MIDNIGHT, MIDNIGHT + DAY)},
        ["archive.predictions_20260305", "predictions_20260306"],
    ),
    "another name": (
        {'"March, 5th %"': between(MIDNIGHT, MIDNIGHT + DAY)},
        ['"March, 5th %"', "predictions_20260306"],
    ),
    "another time zone": (
        {"local": between(MIDNIGHT - 5 * HOUR, MIDNIGHT + 19 * HOUR)},
        ["local", "predictions_20260306"],
    ),
    "an hour": (
        {"lunch": between(NOON, NOON + HOUR)}, ["lunch", "predictions_20260306"],
    ),
    "half days": (
        {"morning": between(MIDNIGHT, NOON), "afternoon": between(NOON, MIDNIGHT + DAY)},
        ["afternoon", "predictions_20260306"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", OPERATORS)
async def test_partitions_that_the_operator_made_are_used_and_kept(
    engine: AsyncEngine, made: str
) -> None:
    partitions, expected = OPERATORS[made]
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA archive"))
    for name, bounds in partitions.items():
        await partition(engine, name, bounds)
    times = [NOON, NOON + DAY]
    await write(engine, [make_prediction(created_at=at) for at in times])
    assert await PartitionMaintenance(engine, retention_days=0).run(TODAY) == []
    await write(engine, [make_prediction(created_at=at) for at in times])
    async with engine.connect() as connection:
        homes = await connection.scalars(
            text("SELECT tableoid::regclass::text FROM predictions ORDER BY id")
        )
        assert homes.all() == [home for home in expected for _ in range(2)]
    later = TODAY + timedelta(days=400)
    await serve_before(engine, later)
    dropped = await PartitionMaintenance(engine, retention_days=3).run(later)
    assert all(day >= TODAY for day in dropped)
    assert (await counts(engine))["predictions"] == 2 * sum(home in partitions for home in expected)
    for name in partitions:
        assert await rows_of(engine, name) == 2 * expected.count(name)


async def test_rows_in_a_default_partition_stay_there(engine: AsyncEngine) -> None:
    await partition(engine, "rest", "DEFAULT")
    before = make_prediction(created_at=MIDNIGHT)
    async with engine.begin() as connection:
        # As rows got there before the service made a partition of that day.
        await connection.execute(text("ALTER TABLE predictions DETACH PARTITION rest"))
    await write(engine, [before])
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO rest SELECT * FROM predictions"))
        await connection.execute(
            text("ALTER TABLE predictions DETACH PARTITION predictions_20260305")
        )
        await connection.execute(text("DROP TABLE predictions_20260305"))
        await connection.execute(text("ALTER TABLE predictions ATTACH PARTITION rest DEFAULT"))
    await write(engine, [make_prediction(created_at=MIDNIGHT + HOUR)])
    assert await PartitionMaintenance(engine, retention_days=0).run(TODAY) == []
    assert await rows_of(engine, "rest") == 2
    assert await days(engine) == [TODAY + timedelta(days=n) for n in range(1, DAYS_AHEAD + 1)]


async def bring_texts_back(engine: AsyncEngine) -> None:
    """As the restore of a backup does: every partition is made anew, with all of its texts."""
    async with engine.begin() as connection:
        present = await connection.execute(
            text(
                "SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, inhrelid) FROM "
                "pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = "
                "'predictions'::regclass"
            )
        )
        for name, bounds in present.all():
            for statement in (
                f"CREATE TABLE made_anew (LIKE {name} INCLUDING ALL)",
                f"INSERT INTO made_anew SELECT * FROM {name}",
                "UPDATE made_anew SET text = 'from the backup' WHERE text IS NULL",
                f"ALTER TABLE predictions DETACH PARTITION {name}",
                f"DROP TABLE {name}",
                f"ALTER TABLE made_anew RENAME TO {name}",
                f"ALTER TABLE predictions ATTACH PARTITION {name} {bounds}",
            ):
                await connection.execute(text(statement))


@pytest.mark.parametrize(
    "bounds", [None, "DEFAULT", between(MIDNIGHT - 30 * DAY, MIDNIGHT + 30 * DAY)]
)
async def test_texts_that_a_restore_brings_back_are_removed_again(
    engine: AsyncEngine, bounds: str | None
) -> None:
    if bounds is not None:
        await partition(engine, "rest", bounds)
    writer = PredictionWriter(engine, "full")
    old = make_prediction("old", created_at=MIDNIGHT - 3 * DAY)
    new = make_prediction("new", created_at=MIDNIGHT)
    await writer.write([old, new])
    await serve_before(engine, TODAY)
    maintenance = PartitionMaintenance(engine, retention_days=0, text_days=2)
    for _ in range(2):
        await maintenance.run(TODAY)
        assert await texts(engine) == [None, "new"]
        await bring_texts_back(engine)
        assert await texts(engine) == ["from the backup", "new"]
    await maintenance.run(TODAY + DAY)
    assert await texts(engine) == [None, "new"]
    await serve_before(engine, TODAY + 3 * DAY)
    await maintenance.run(TODAY + 3 * DAY)
    assert await texts(engine) == [None, None]


async def test_texts_that_a_machine_with_another_setting_adds_to_an_old_day_are_removed(
    engine: AsyncEngine,
) -> None:
    maintenance = PartitionMaintenance(engine, retention_days=0, text_days=2)
    for late in range(2):
        made = make_prediction(f"{late}", created_at=MIDNIGHT - 3 * DAY)
        await PredictionWriter(engine, "full").write([made])
        await serve_before(engine, TODAY)
        await until_counted(engine, late + 1)
        await maintenance.run(TODAY)
        assert set(await texts(engine)) == {None}


async def until_counted(engine: AsyncEngine, rows: int) -> None:
    """Return once PostgreSQL's statistics have so many predictions: they follow a second later."""
    while True:
        async with engine.connect() as connection:
            if sum(found.inserted for found in await partitions(connection)) >= rows:
                return
        await asyncio.sleep(0.05)


async def texts(engine: AsyncEngine) -> list[str | None]:
    async with engine.connect() as connection:
        found = await connection.scalars(text("SELECT text FROM predictions ORDER BY id"))
        return list(found)


@pytest.fixture
def of_another_role(database_url: URL) -> Iterator[URL]:
    """The database as a role that may use the tables, and make none."""
    role, name = f"role_{uuid4().hex}", database_url.database
    run_sql(database_url, f"CREATE ROLE {role}")
    run_sql(database_url, "CREATE TABLE rest PARTITION OF predictions DEFAULT")
    for what in ("ALL TABLES", "ALL SEQUENCES"):
        run_sql(database_url, f"GRANT ALL ON {what} IN SCHEMA public TO {role}")
    run_sql(database_url, f"ALTER DATABASE {name} SET role = '{role}'")
    yield database_url
    admin = database_url.set(database="postgres")
    run_sql(admin, f"ALTER DATABASE {name} RESET ALL")
    for owned in (f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}"):
        run_sql(database_url, owned)
    run_sql(admin, f"DROP ROLE {role}")


async def test_default_partition_takes_all_of_a_role_that_may_make_none(
    of_another_role: URL, engine: AsyncEngine
) -> None:
    del of_another_role
    for at in (NOON, NOON + DAY, NOON):
        await write(engine, [make_prediction(created_at=at)])
    assert await rows_of(engine, "rest") == 3
    assert await PartitionMaintenance(engine, retention_days=3).run(TODAY) == []


async def test_name_of_a_detached_partition_is_not_taken_for_the_day(engine: AsyncEngine) -> None:
    await write(engine, [make_prediction(created_at=MIDNIGHT)])
    async with engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE predictions DETACH PARTITION predictions_20260305")
        )
        await connection.execute(text("CREATE VIEW predictions_20260305_2 AS SELECT 1"))
    await write(engine, [make_prediction(created_at=MIDNIGHT)])
    assert await rows_of(engine, "predictions_20260305_3") == 1
    await serve_before(engine, TODAY + 9 * DAY)
    assert await PartitionMaintenance(engine, retention_days=3).run(TODAY + 9 * DAY) == [TODAY]
    assert await rows_of(engine, "predictions_20260305") == 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=5),
    st.integers(0, 20),
    st.integers(0, 6),
)
def test_gaps_and_covered_ranges_make_up_what_is_needed(
    covered: list[tuple[int, int]], start: int, length: int
) -> None:
    ranges = [range(first, first + size) for first, size in covered]
    needed = range(start, start + length)
    found = [number for gap in gaps(needed, ranges) for number in gap]
    assert found == [n for n in needed if not any(n in ids for ids in ranges)]


async def test_maintenance_that_fails_is_counted(database_url: URL) -> None:
    """An alert looks at it."""

    def failures() -> float:
        return counter("background_failures_total", task="PartitionMaintenance")

    engine = create_engine(
        database_url.update_query_dict({"host": "/nowhere"}), pool_size=1, timeout_seconds=1
    )
    before = failures()
    maintenance = PartitionMaintenance(engine, retention_days=3)
    maintenance.start()
    await until(lambda: failures() > before)
    await maintenance.stop()
    await engine.dispose()
