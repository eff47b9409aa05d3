"""A line that cannot be stored is set aside and stops no other; every other fault keeps lines."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import ComparisonRecord, Entry, decode, encode, to_record
from analytics.log.rejected import REJECTED, set_aside
from analytics.log.segments import new_segment, segments
from analytics.log.shipper import Shipper
from analytics.log.shipper_supervisor import LOCK
from analytics.log.writer import LogWriter
from core.paths import ROOT
from core.types import Assignment, Experiment, Failure, ModelVersion, Prediction, Split
from core.uuid7 import new_id
from tests.database import run_sql, scalar
from tests.integration.predictions import make_prediction
from tests.waiting import until

NOW = datetime.now(UTC)
V1, V2 = ModelVersion("v1", "v1-revision", "fake"), ModelVersion("v2", "v2-revision", "fake")


def record(**changes: Any) -> Prediction:
    return replace(to_record(make_prediction(), "hash"), **changes)


def at(moment: datetime) -> Prediction:
    return record(id=new_id(NOW), created_at=moment)


# Each line parses. Some values the driver cannot encode, some PostgreSQL refuses, and some the
# writer cannot compute with.
POISON: dict[str, Entry] = {
    "token_count_of_a_forged_cache_value": Entry((record(token_count=10**9),)),
    "text_characters_too_many": Entry((record(text_characters=10**12),)),
    "count_beyond_64_bits": Entry((record(token_count=10**30),)),
    "text_with_a_null_character": Entry((record(text="\0"),)),
    "revision_with_a_null_character": Entry((record(model=ModelVersion("v1", "\0", "fake")),)),
    "confidence_above_one": Entry((record(confidence=1.5),)),
    "confidence_beyond_a_real": Entry((record(confidence=1e300),)),
    "time_of_another_id": Entry((at(datetime(2020, 1, 1, tzinfo=UTC)),)),
    "first_year": Entry((at(datetime(1, 1, 1, tzinfo=UTC)),)),
    "last_year": Entry((at(datetime(9999, 12, 31, 23, tzinfo=UTC)),)),
    "time_without_a_zone": Entry((at(datetime(2026, 1, 1)),)),  # noqa: DTZ001
    "share_of_a_test_that_is_not_finite": Entry(
        (record(assignment=Assignment(Experiment(Split("\0", 1e308), V1, V2), b"s")),)
    ),
    "failures_too_many": Entry(failures=(Failure(new_id(NOW), NOW, "/predict", V1, 10**12),)),
    "comparison_without_its_predictions": Entry(
        comparison=ComparisonRecord(new_id(NOW), NOW, new_id(NOW), new_id(NOW))
    ),
}


def write_segment(folder: Path, *lines: bytes) -> None:
    new_segment(folder, datetime.now(UTC)).write_bytes(b"".join(lines))


async def ship(folder: Path, engine: AsyncEngine) -> None:
    stopping = asyncio.Event()
    stopping.set()
    async with asyncio.timeout(40):
        await Shipper(folder, LogWriter(engine), poll_seconds=0.01).run(stopping)


async def ids(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.scalars(text("SELECT id::text FROM predictions")))


async def counted(engine: AsyncEngine) -> int:
    query = "SELECT coalesce(sum(negative + neutral + positive), 0)::int FROM rollups"
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"{query} WHERE bucket_seconds = 60")) or 0)


def rejected(folder: Path) -> list[dict[str, str]]:
    return [json.loads(row) for row in (folder / REJECTED).read_text().splitlines()]


@pytest.mark.parametrize("name", POISON)
async def test_poison_line_is_set_aside_and_its_neighbours_are_stored(
    name: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    good = [record() for _ in range(6)]
    lines = [encode(Entry((prediction,))) for prediction in good]
    poison = encode(POISON[name])
    write_segment(tmp_path, *lines[:3], poison, *lines[3:])
    await ship(tmp_path, engine)
    assert await ids(engine) == {str(prediction.id) for prediction in good}
    assert await counted(engine) == 6
    assert segments(tmp_path) == []
    [row] = rejected(tmp_path)
    assert row["line"].encode("latin-1") + b"\n" == poison
    assert row["reason"]


async def test_every_poison_line_without_a_neighbour_is_set_aside(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    write_segment(tmp_path, *map(encode, POISON.values()))
    await ship(tmp_path, engine)
    assert len(rejected(tmp_path)) == len(POISON)
    assert await ids(engine) == set()
    # A try leaves nothing behind, not even a number of the sequence.
    async with engine.connect() as connection:
        models = await connection.scalars(text("SELECT engine FROM model_versions"))
    assert set(models) <= {"fake"}


async def test_good_predictions_of_a_poisoned_request_are_stored(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    good, poison = [record() for _ in range(9)], record(token_count=10**9)
    write_segment(tmp_path, encode(Entry((*good[:5], poison, *good[5:]))))
    await ship(tmp_path, engine)
    assert await ids(engine) == {str(prediction.id) for prediction in good}
    [row] = rejected(tmp_path)
    assert [made["id"] for made in json.loads(row["line"])["predictions"]] == [str(poison.id)]


SCHEMA_FAULTS = {
    "new_required_column": (
        "ALTER TABLE predictions ADD COLUMN later integer NOT NULL",
        "ALTER TABLE predictions DROP COLUMN later",
    ),
    "missing_column": (
        "ALTER TABLE predictions RENAME COLUMN latency_ms TO gone",
        "ALTER TABLE predictions RENAME COLUMN gone TO latency_ms",
    ),
    "constraint_that_refuses_all": (
        "ALTER TABLE rollups ADD CONSTRAINT none CHECK (bucket_seconds = 0) NOT VALID",
        "ALTER TABLE rollups DROP CONSTRAINT none",
    ),
    "no_right_to_write": (
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} SET default_transaction_read_only = off",
    ),
}


async def execute(url: URL, statements: str) -> None:
    """Run statements in one transaction."""
    connection = await asyncpg.connect(
        host=str(url.query["host"]), user=url.username, database=url.database
    )
    await connection.execute(statements)
    await connection.close()


@pytest.mark.parametrize("fault", SCHEMA_FAULTS)
async def test_lines_stay_in_the_spool_while_postgresql_stores_none(
    fault: str,
    engine: AsyncEngine,
    database_url: URL,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    breaking, mending = (
        statement.format(database=database_url.database) for statement in SCHEMA_FAULTS[fault]
    )
    good = [record() for _ in range(4)]
    write_segment(tmp_path, *(encode(Entry((prediction,))) for prediction in good))
    await asyncio.to_thread(run_sql, database_url, breaking)
    shipping = asyncio.create_task(ship(tmp_path, engine))
    await until(lambda: "PostgreSQL stores no predictions, the spool keeps them" in caplog.text)
    done, _ = await asyncio.wait([shipping], timeout=1.0)
    assert not done
    assert segments(tmp_path)
    await execute(database_url, "SET TRANSACTION READ WRITE; " + mending)
    await shipping
    assert await ids(engine) == {str(prediction.id) for prediction in good}
    assert await counted(engine) == 4
    assert not (tmp_path / REJECTED).exists()


async def test_unexpected_error_of_the_writer_keeps_the_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(LogWriter):
        def __init__(self) -> None:
            self.faults = 3

        async def write(self, *_batch: Any) -> int:
            if self.faults:
                self.faults -= 1
                raise RuntimeError("a fault of our own")
            return 1

    write_segment(tmp_path, encode(Entry((record(),))))
    stopping = asyncio.Event()
    stopping.set()
    with caplog.at_level(logging.INFO, "bentoml.sentiment.log"):
        await Shipper(tmp_path, Faulty(), poll_seconds=0.01).run(stopping)
    assert "RuntimeError: a fault of our own" in caplog.text
    assert "PostgreSQL stores predictions again" in caplog.text
    assert not (tmp_path / REJECTED).exists()


def retry(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.log", "retry", "--folder", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


async def test_rejected_lines_are_stored_once_by_a_retry(
    engine: AsyncEngine, database_url: URL, tmp_path: Path
) -> None:
    good, wide = record(), record(token_count=100_000)
    write_segment(tmp_path, encode(Entry((good,))), encode(Entry((wide,))), b"no line\n")
    await ship(tmp_path, engine)
    assert len(rejected(tmp_path)) == 2
    widened = "ALTER TABLE predictions ALTER COLUMN token_count TYPE integer"
    await asyncio.to_thread(run_sql, database_url, widened)
    before = (tmp_path / REJECTED).read_bytes()
    for _ in range(2):
        done = await asyncio.to_thread(retry, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("1 lines of ")
        assert "1 lines stay" in done.stdout
        await ship(tmp_path, engine)
        assert await ids(engine) == {str(good.id), str(wide.id)}
        assert await counted(engine) == 2
        [row] = rejected(tmp_path)
        assert row["line"] == "no line"
        (tmp_path / REJECTED).write_bytes(before)  # as after a kill before it was replaced


def test_retry_takes_a_data_folder_and_refuses_one_without_a_spool(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    set_aside(spool, encode(Entry((record(),))), "too wide")
    done = retry(tmp_path)
    assert done.stdout == f"1 lines of {spool / REJECTED} wait for PostgreSQL again.\n"
    assert not (spool / REJECTED).exists()
    for folder in (tmp_path / "absent", tmp_path / "spool" / "rejected"):
        refused = retry(folder)
        assert refused.returncode == 1
        assert f"{folder} is no spool: it has no segments" in refused.stderr


def test_retry_without_rejected_lines_says_so(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()  # as a service leaves it
    done = retry(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("0 lines of ")
    assert list(tmp_path.iterdir()) == [tmp_path / LOCK]


async def test_column_whose_type_changed_is_written_at_once(
    engine: AsyncEngine, database_url: URL, tmp_path: Path
) -> None:
    """The connection's plans are for the type before."""
    write_segment(tmp_path, encode(Entry((record(),))))
    writer, stopping = LogWriter(engine), asyncio.Event()
    shipping = asyncio.create_task(Shipper(tmp_path, writer, poll_seconds=0.01).run(stopping))
    await until(lambda: not segments(tmp_path), 20)
    for kind in ("integer", "bigint"):
        change = f"ALTER TABLE predictions ALTER COLUMN token_count TYPE {kind}"
        await asyncio.to_thread(run_sql, database_url, change)
        write_segment(tmp_path, *(encode(Entry((record(),))) for _ in range(3)))
        await until(lambda: not segments(tmp_path), 10)
    stopping.set()
    await shipping
    assert await asyncio.to_thread(scalar, database_url, "SELECT count(*) FROM predictions") == 7
    assert not (tmp_path / REJECTED).exists()


def test_every_poison_line_can_be_read() -> None:
    for poison in POISON.values():
        assert encode(decode(encode(poison))) == encode(poison)
