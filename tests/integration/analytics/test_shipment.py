"""`sentiment log ship` empties a left spool into a real PostgreSQL, each prediction once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace as replaced
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace
from sqlalchemy import URL, text

from analytics.log.destination import Destination, note
from analytics.log.records import ComparisonRecord, Entry, encode, to_record
from analytics.log.rejected import REJECTED, set_aside
from analytics.log.seal import FILE as SEAL_FILE
from analytics.log.seal import Seal, SpoolSeal
from analytics.log.segments import TEMP_SUFFIX, new_segment, segments, try_lock
from analytics.log.shipment import NoSpool, Shipment, SpoolInUse, ship_folder
from analytics.log.shipper_supervisor import LOCK, FolderLock, ShipperSupervisor
from core.paths import ROOT
from core.postgres import opened_engine
from core.types import Failure, ModelVersion, Prediction
from core.uuid7 import new_id
from serving.embedded.postgres import embedded_postgres
from tests.commands import Ended, run_here
from tests.database import fetch, scalar
from tests.integration.predictions import make_prediction
from tests.waiting import wait_until

NOW = datetime.now(UTC)
# Longer than any step of a test takes.
WAIT_SECONDS = 30.0
COUNTED = """SELECT coalesce(sum(negative + neutral + positive), 0)::int
    FROM rollups WHERE bucket_seconds = 60"""


def records(number: int, at: datetime = NOW) -> list[Prediction]:
    return [to_record(make_prediction(created_at=at), "hash") for _ in range(number)]


def lines(predictions: list[Prediction]) -> bytes:
    return b"".join(encode(Entry((prediction,))) for prediction in predictions)


def write(folder: Path, *content: bytes) -> Path:
    """A complete segment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = new_segment(folder, datetime.now(UTC))
    path.write_bytes(b"".join(content))
    return path


def stored(url: URL) -> tuple[int, int, int]:
    """The predictions of a database, how many of them differ, and how many the rollups count."""
    [row] = fetch(url, "SELECT count(*) AS all, count(DISTINCT id) AS different FROM predictions")
    return row["all"], row["different"], scalar(url, COUNTED)


def ship(folder: Path, url: URL, wait_seconds: float = WAIT_SECONDS) -> Shipment:
    return asyncio.run(ship_folder(folder, url, (), wait_seconds=wait_seconds))


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "scripts.cli", "log", "ship", str(folder)]


def environment(url: URL) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)}


def run(folder: Path, url: URL, *options: str) -> Ended:
    database_url = url.render_as_string(hide_password=False)
    arguments = ("log", "ship", str(folder), *options)
    return run_here("scripts.cli", *arguments, DATABASE_URL=database_url)


def sealed(seal: Seal, predictions: list[Prediction]) -> bytes:
    return b"".join(
        encode(Entry(seal.apply([prediction]), seal=seal.id)) for prediction in predictions
    )


def test_spool_without_its_key_is_shipped_once_the_key_is_beside_it(
    tmp_path: Path, database_url: URL
) -> None:
    spool = tmp_path / "moved" / "spool"
    seal = Seal(b"k" * 32)
    write(spool, sealed(seal, records(3)))
    for content in (None, b"another key".ljust(32)):
        if content is not None:
            (spool.parent / SEAL_FILE).write_bytes(content)
        refused = run(spool, database_url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"copy DATA_FOLDER/{SEAL_FILE}" in " ".join(refused.stderr.split())
        assert not (spool / REJECTED).exists()
    (spool.parent / SEAL_FILE).write_bytes(seal.key)
    assert run(spool, database_url).returncode == 0
    assert stored(database_url) == (3, 3, 3)


def test_spool_of_another_database_is_shipped_with_a_warning(
    tmp_path: Path, database_url: URL
) -> None:
    spool = tmp_path / "spool"
    write(spool, lines(records(2)))
    note(spool, Destination("7/5", "postgresql://elsewhere/reviews"))
    shipped = run(spool, database_url)
    assert shipped.returncode == 0
    assert "stored in another database, postgresql://elsewhere/reviews" in shipped.stderr
    assert stored(database_url) == (2, 2, 2)


def test_lines_of_a_lost_key_hold_up_no_others(tmp_path: Path, database_url: URL) -> None:
    spool = tmp_path / "spool"
    write(spool, sealed(Seal(b"l" * 32), records(2)))
    write(spool, sealed(SpoolSeal(spool).current, records(3)))
    shipped = ship(spool, database_url)
    assert (shipped.stored, shipped.rejected) == (3, 2)


# Each writes a spool, and returns what is to come of it: predictions in PostgreSQL; then stored,
# rejected, left, and lines of rejected.jsonl, as a run counts them.
Expected = tuple[int, int, int, int, int]
Left = Callable[[Path, URL], Expected]


def nothing(folder: Path, url: URL) -> Expected:
    return 0, 0, 0, 0, 0


def one_segment(folder: Path, url: URL) -> Expected:
    write(folder, lines(records(7)))
    return 7, 7, 0, 0, 0


def many_segments(folder: Path, url: URL) -> Expected:
    for number in range(40):
        write(folder, lines(records(number)))
    return 780, 780, 0, 0, 0


def empty_segment(folder: Path, url: URL) -> Expected:
    write(folder)
    return 0, 0, 0, 0, 0


def batches(folder: Path, url: URL) -> Expected:
    write(folder, *(encode(Entry(tuple(records(100)))) for _ in range(30)))
    return 3_000, 3_000, 0, 0, 0


def torn_line(folder: Path, url: URL) -> Expected:
    """As a process leaves it that is killed while it writes: this line was not acknowledged."""
    write(folder, lines(records(3)), lines(records(1))[:-20])
    return 3, 3, 0, 0, 0


def same_line_twice(folder: Path, url: URL) -> Expected:
    """As a spool writes it again whose folder was deleted."""
    made = lines(records(5))
    write(folder, made)
    write(folder, made)
    return 5, 10, 0, 0, 0


def stored_before(folder: Path, url: URL) -> Expected:
    """As after a kill between the commit and the deletion."""
    made = records(6)
    write(folder, lines(made[:4]))
    ship(folder, url)
    write(folder, lines(made))
    return 6, 6, 0, 0, 0


def long_ago(folder: Path, url: URL) -> Expected:
    """Of days that have no partition yet."""
    for days in (0, 1, 40):
        write(folder, lines(records(2, NOW - timedelta(days=days))))
    return 6, 6, 0, 0, 0


def comparison(folder: Path, url: URL) -> Expected:
    v1, v2 = records(1)[0], to_record(make_prediction(version="v2"), "hash")
    link = ComparisonRecord(new_id(NOW), NOW, v1.id, v2.id)
    write(folder, encode(Entry((v1, v2), link)))
    return 2, 2, 0, 0, 0


def failures_alone(folder: Path, url: URL) -> Expected:
    failure = Failure(new_id(NOW), NOW, "/predict", ModelVersion("v1", "r", "e"), 3)
    write(folder, encode(Entry(failures=(failure,))))
    return 0, 0, 0, 0, 0


def unreadable_line(folder: Path, url: URL) -> Expected:
    write(folder, lines(records(2)), b"no line of the log\n", lines(records(2)))
    return 4, 4, 1, 0, 1


def poison(folder: Path, url: URL) -> Expected:
    write(folder, lines([*records(2), replace(records(1)[0], token_count=10**9), *records(2)]))
    return 4, 4, 1, 0, 1


def set_aside_before(folder: Path, url: URL) -> Expected:
    set_aside(folder, b"of an earlier run", "a reason")
    write(folder, lines(records(2)))
    return 2, 2, 0, 0, 1


def temporary_file(folder: Path, url: URL) -> Expected:
    """A process was killed before it named its segment; nothing in it was acknowledged."""
    write(folder, lines(records(2)))
    write(folder, lines(records(2))).rename(folder / f"killed{TEMP_SUFFIX}")
    return 2, 2, 0, 0, 0


def data_folder(folder: Path, url: URL) -> Expected:
    write(folder / "spool", lines(records(2)))
    (folder / LOCK).unlink()
    (folder / "rollout.json").write_text("{}")
    return 2, 2, 0, 0, 0


SPOOLS = [
    nothing, one_segment, many_segments, empty_segment, batches, torn_line, same_line_twice,
    stored_before, long_ago, comparison, failures_alone, unreadable_line, poison, set_aside_before,
    temporary_file, data_folder,
]  # fmt: skip


@pytest.mark.parametrize("left", SPOOLS, ids=lambda left: left.__name__)
def test_left_spool_is_shipped_once(left: Left, database_url: URL, tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    in_database, *expected = left(tmp_path, database_url)
    result = ship(tmp_path, database_url)
    counts = [result.stored, result.rejected, result.left, result.rejected_lines]
    assert (counts, result.segments_left, result.reason) == (expected, 0, None)
    # And again, as a Job that Kubernetes repeats.
    again = ship(tmp_path, database_url)
    assert (again.stored, again.rejected, again.left) == (0, 0, 0)
    assert stored(database_url) == (in_database,) * 3
    assert list(tmp_path.rglob("*.ndjson")) == []


@pytest.mark.parametrize(
    ("left", "code"),
    [(nothing, 0), (one_segment, 0), (unreadable_line, 3), (poison, 3), (set_aside_before, 3)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_exit_code_and_lines_tell_what_is_left(
    left: Left, code: int, database_url: URL, tmp_path: Path
) -> None:
    (tmp_path / LOCK).touch()
    _, made, rejected, _, rejected_lines = left(tmp_path, database_url)
    done = run(tmp_path, database_url)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == [
        f"{made} predictions of {tmp_path} are in PostgreSQL now",
        f"{rejected} lines were set aside now",
        "0 predictions are left",
    ]
    assert (f"{rejected_lines} lines in {tmp_path / REJECTED}" in done.stderr) == (code == 3)
    assert ("log retry --folder" in done.stderr) == (code == 3)


def test_counts_are_printed_as_json(database_url: URL, tmp_path: Path) -> None:
    one_segment(tmp_path, database_url)
    done = run(tmp_path, database_url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "folder": str(tmp_path), "stored": 7, "rejected": 0, "left": 0, "segments_left": 0,
        "rejected_lines": 0, "reason": None, "sinks_left": {}, "other_sinks": [],
        "other_database": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["empty", "models", "data/spool/deeper"])
def test_folder_that_is_no_spool_is_not_taken_for_an_empty_one(
    name: str, database_url: URL, tmp_path: Path
) -> None:
    write(tmp_path / "data" / "spool", lines(records(1)))
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(NoSpool, match="is no spool: it has no segments"):
        ship(folder, database_url)
    assert list(folder.iterdir()) == []


def test_folder_of_a_live_shipper_is_refused(database_url: URL, tmp_path: Path) -> None:
    one_segment(tmp_path, database_url)
    with closing(FolderLock(tmp_path / LOCK)) as lock:
        assert lock.acquire()
        with pytest.raises(SpoolInUse, match=f"a running service ships {tmp_path}"):
            ship(tmp_path, database_url)
        done = run(tmp_path, database_url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "stop the service, or let it ship" in done.stderr
    assert stored(database_url) == (0, 0, 0)
    assert ship(tmp_path, database_url).stored == 7


def test_segment_that_a_process_still_writes_is_stored_and_left(
    database_url: URL, tmp_path: Path
) -> None:
    path = write(tmp_path, lines(records(3)))
    with path.open("rb") as file:
        assert try_lock(file)
        result = ship(tmp_path, database_url)
    assert (result.stored, result.left, result.segments_left) == (3, 3, 1)
    assert result.reason == "a process still writes to them, or they cannot be read"
    assert stored(database_url) == (3, 3, 3)
    after = replaced(result, left=0, segments_left=0, reason=None)
    assert ship(tmp_path, database_url) == after
    assert stored(database_url) == (3, 3, 3)


def test_segment_that_cannot_be_read_is_left(database_url: URL, tmp_path: Path) -> None:
    new_segment(tmp_path, NOW).mkdir()  # not even root can read it as a file
    one_segment(tmp_path, database_url)
    done = run(tmp_path, database_url)
    assert (done.returncode, "7 predictions of" in done.stdout) == (1, True)
    assert "1 segments are left: a process still writes to them, or" in done.stderr


def test_kill_in_the_middle_loses_and_doubles_nothing(database_url: URL, tmp_path: Path) -> None:
    # More than one transaction.
    total = 30_000
    for _ in range(30):
        write(tmp_path, lines(records(1_000)))
    with subprocess.Popen(
        command(tmp_path), cwd=ROOT, env=environment(database_url), stdout=subprocess.PIPE
    ) as process:
        # It has committed something, and has more to do.
        wait_until(lambda: stored(database_url)[0] > 0, WAIT_SECONDS)
        process.kill()
        assert process.wait() < 0
    assert segments(tmp_path)
    assert run(tmp_path, database_url).returncode == 0
    assert stored(database_url) == (total,) * 3


def test_two_at_once_ship_each_prediction_once(database_url: URL, tmp_path: Path) -> None:
    """One has the lock, and the other is refused, whichever was first."""
    for _ in range(5):
        write(tmp_path, lines(records(1_000)))
    started = [
        subprocess.Popen(
            command(tmp_path), cwd=ROOT, env=environment(database_url), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [process.communicate() for process in started]
    codes = sorted(process.returncode for process in started)
    assert codes in ([0, 0], [0, 1]), outputs
    assert sum("a running service ships" in error for _, error in outputs) == codes.count(1)
    assert stored(database_url) == (5_000,) * 3
    assert segments(tmp_path) == []


async def test_service_that_comes_back_waits_for_the_lock_and_ships_the_rest(
    database_url: URL, tmp_path: Path
) -> None:
    write(tmp_path, lines(records(10)))
    lock = FolderLock(tmp_path / LOCK)
    assert lock.acquire()
    supervisor = ShipperSupervisor(tmp_path)
    supervisor.start()
    write(tmp_path, lines(records(10)))
    assert not await supervisor.drain(0.2)
    assert len(segments(tmp_path)) == 2
    lock.close()
    result = await ship_folder(tmp_path, database_url, (), wait_seconds=WAIT_SECONDS)
    assert result.stored == 20


def test_postgresql_away_then_back_loses_and_doubles_nothing(
    own_postgres: tuple[ExitStack, Path, URL], tmp_path: Path
) -> None:
    running, folder, url = own_postgres
    spool = tmp_path / "spool"
    write(spool, lines(records(500)))
    running.close()
    done = run(spool, url, "--wait-seconds", "1", "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["stored"], result["left"]) == (1, 0, 500)
    assert result["reason"].startswith("PostgreSQL has stored nothing for 1 s: ")
    assert result["reason"] in done.stderr
    with subprocess.Popen(
        command(spool),
        cwd=ROOT,
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as waiting:
        assert waiting.stderr is not None
        # It has found PostgreSQL away.
        assert b"PostgreSQL stores no predictions" in waiting.stderr.readline()
        with embedded_postgres(folder):
            assert waiting.wait(WAIT_SECONDS) == 0
            assert stored(url) == (500, 500, 500)
            # Hanging in the middle, as a machine that is gone without a word.
            write(spool, lines(records(500)))
            postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
            postmaster.suspend()
            try:
                started = time.monotonic()
                result = ship(spool, url, 1.0)
                assert time.monotonic() - started < 20
                assert (result.stored, result.left) == (0, 500)
                assert result.reason == "PostgreSQL has stored nothing for 1 s: no answer in time"
            finally:
                postmaster.resume()
            assert ship(spool, url).stored == 500
            assert stored(url) == (1_000, 1_000, 1_000)


async def test_database_that_does_not_answer_a_write_is_the_reason(
    database_url: URL, tmp_path: Path
) -> None:
    write(tmp_path, lines(records(10)))
    async with (
        opened_engine(database_url, timeout_seconds=10.0) as engine,
        engine.begin() as holder,
    ):
        await holder.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
        held = await ship_folder(tmp_path, database_url, (), wait_seconds=1.0)
    assert held.reason == "PostgreSQL has stored nothing for 1 s: no answer in time"
    after = await ship_folder(tmp_path, database_url, (), wait_seconds=WAIT_SECONDS)
    assert (held.stored, after.stored, after.reason) == (0, 10, None)


async def test_drain_ends_at_once_when_the_spool_is_empty(tmp_path: Path) -> None:
    supervisor = ShipperSupervisor(tmp_path)
    supervisor.start()
    async with asyncio.timeout(5):
        assert await supervisor.drain(3_600)


async def test_drain_waits_for_a_shipper_that_another_process_runs(
    database_url: URL, tmp_path: Path
) -> None:
    write(tmp_path, lines(records(100)))
    supervisor = ShipperSupervisor(tmp_path)
    draining = asyncio.create_task(supervisor.drain(WAIT_SECONDS))
    await asyncio.sleep(0)  # it has looked which segments there are
    result = await ship_folder(tmp_path, database_url, (), wait_seconds=WAIT_SECONDS)
    assert result.stored == 100
    assert await draining


async def test_drain_that_ends_too_soon_says_how_many_are_left_and_what_to_type(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, encode(Entry(tuple(records(100)))), lines(records(23)))
    assert not await ShipperSupervisor(tmp_path).drain(0)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        f"stopped with 123 predictions left in {tmp_path}: the next service with this folder ships "
        f"them, or `sentiment log ship {tmp_path}`; whoever moves it has to move "
        f"{tmp_path.parent / SEAL_FILE} too"
    )
