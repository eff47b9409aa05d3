"""The prediction log gives the spool what the prediction path records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics.log.prediction_log import ANSWER_SECONDS, PredictionLog
from analytics.log.records import ComparisonRecord, Entry, decode, to_record
from analytics.log.seal import SpoolSeal
from analytics.log.spool import SpoolFull, WhenFull
from core.errors import LogUnavailable
from core.types import Comparison, ModelVersion
from core.uuid7 import new_id
from tests.unit.fakes import counter, prediction
from tests.waiting import until


class FakeSpool:
    """Decodes and collects lines; raises `error`, and waits for `gate`."""

    def __init__(self, folder: Path) -> None:
        self.seal = SpoolSeal(folder)
        self.entries: list[Entry] = []
        self.checks: list[tuple[int, bool]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.appends = 0

    async def append(self, line: bytes) -> None:
        self.appends += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.entries.append(decode(line))

    async def check(self, needed_bytes: int, *, sync: bool) -> None:
        self.checks.append((needed_bytes, sync))
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def spool(tmp_path: Path) -> FakeSpool:
    return FakeSpool(tmp_path / "spool")


class HangingSeal(SpoolSeal):
    """Hangs in its thread while it waits for its file."""

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        self.goes_on = threading.Event()
        self.calls = 0

    def keep(self) -> None:
        super().keep()
        if hasattr(self, "goes_on"):
            self.calls += 1
            self.goes_on.wait()


def make_log(
    spool: FakeSpool,
    when_full: WhenFull = "refuse",
    seal: SpoolSeal | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> PredictionLog:
    return PredictionLog(
        spool,
        seal or spool.seal,
        text_storage="hash",
        when_full=when_full,
        answer_seconds=answer_seconds,
    )


async def test_predictions_of_one_request_are_one_entry(spool: FakeSpool) -> None:
    v1, v2 = prediction(), prediction()
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
    before = counter("prediction_log_recorded_total")
    await make_log(spool).record([v1, v2], comparison)
    records = tuple(to_record(made, "hash") for made in (v1, v2))
    seal = spool.seal.current
    assert spool.entries == [
        Entry(seal.apply(records), ComparisonRecord.of(comparison), seal=seal.id)
    ]
    assert counter("prediction_log_recorded_total") - before == 2


async def test_record_returns_once_the_line_is_on_disk(spool: FakeSpool) -> None:
    spool.gate.clear()
    recording = asyncio.create_task(make_log(spool).record([prediction()]))
    done, _ = await asyncio.wait([recording], timeout=0.05)
    assert not done
    spool.gate.set()
    await recording


@pytest.mark.parametrize("error", [SpoolFull(), OSError(28, "No space left on device")])
async def test_a_failing_spool_refuses_requests_until_it_recovers(
    spool: FakeSpool, error: Exception
) -> None:
    log = make_log(spool)
    log.start()
    log.check()
    spool.error = error
    with pytest.raises(LogUnavailable):
        await log.record([prediction()])
    for _ in range(2):
        with pytest.raises(LogUnavailable):  # before a model runs for the next request
            log.check()
        checks = len(spool.checks)
        await until(lambda: len(spool.checks) > checks + 1)  # noqa: B023
    assert log.refusing
    spool.error = None
    await until(lambda: not log.refusing)
    log.check()
    await log.record([prediction()])
    assert len(spool.entries) == 1
    await log.stop()


async def test_spool_that_fails_while_idle_is_refusing_before_a_request_comes(
    spool: FakeSpool,
) -> None:
    log = make_log(spool)
    log.start()
    await until(lambda: bool(spool.checks))
    assert not log.refusing
    spool.error = OSError(30, "Read-only file system")
    await until(lambda: log.refusing)
    spool.error = None
    await until(lambda: not log.refusing)
    await log.stop()


async def test_full_spool_is_refusing_until_the_refused_line_fits(spool: FakeSpool) -> None:
    log = make_log(spool)
    log.start()
    spool.error = SpoolFull()
    with pytest.raises(LogUnavailable):
        await log.record([prediction()] * 100)
    await until(lambda: bool(spool.checks))
    needed, sync = spool.checks[-1]
    assert sync
    assert needed > 100 * 200
    assert log.refusing
    await log.stop()


@pytest.mark.parametrize("error", [SpoolFull(), OSError(28, "No space left on device")])
async def test_a_failing_spool_drops_and_counts_predictions_if_so_configured(
    spool: FakeSpool, error: Exception
) -> None:
    log = make_log(spool, "drop_oldest")
    spool.error = error
    before = counter("prediction_log_dropped_total")
    await log.record([prediction(), prediction()])
    log.check()
    assert counter("prediction_log_dropped_total") - before == 2


async def test_disk_that_hangs_refuses_requests_until_it_answers(spool: FakeSpool) -> None:
    log = make_log(spool, answer_seconds=0.1)
    log.start()
    spool.gate.clear()
    with pytest.raises(LogUnavailable):
        await log.record([prediction()])
    checks = len(spool.checks)
    await asyncio.sleep(1.0)
    assert log.refusing
    assert len(spool.checks) <= checks + 1  # the one that waits is the only one
    spool.gate.set()
    await until(lambda: not log.refusing)
    await log.record([prediction()])
    await log.stop()


async def test_disk_that_hangs_is_noticed_before_a_request_comes(tmp_path: Path) -> None:
    spool, seal = FakeSpool(tmp_path / "spool"), HangingSeal(tmp_path / "spool")
    log = make_log(spool, seal=seal, answer_seconds=0.1)
    log.start()
    await until(lambda: log.refusing)
    await asyncio.sleep(0.5)
    assert seal.calls == 1
    seal.goes_on.set()
    await until(lambda: not log.refusing)
    await log.stop()


async def test_disk_that_hangs_holds_up_no_request_of_a_log_that_drops(spool: FakeSpool) -> None:
    log = make_log(spool, "drop_oldest", answer_seconds=0.2)
    log.start()
    before = counter("prediction_log_dropped_total")
    spool.gate.clear()
    await log.record([prediction()])  # the first waits for as long as a disk may take
    started = asyncio.get_running_loop().time()
    for _ in range(100):
        log.check()
        await log.record([prediction()])
    assert asyncio.get_running_loop().time() - started < 5  # of 20
    assert counter("prediction_log_dropped_total") - before == 101
    assert not log.refusing
    spool.gate.set()
    async with asyncio.timeout(5):
        while not spool.entries:
            await log.record([prediction()])
            await asyncio.sleep(0.05)
    await log.stop()


def failures(entries: Sequence[Entry]) -> list[tuple[ModelVersion, str, int]]:
    return [(f.model, f.endpoint, f.texts) for entry in entries for f in entry.failures]


async def test_failures_of_half_a_second_are_one_row(spool: FakeSpool) -> None:
    log, model = make_log(spool), ModelVersion("v1", "revision", "fake")
    for _ in range(10):
        log.record_failure(model, "/predict", 1)
    log.record_failure(model, "/predict/batch", 5)
    assert spool.entries == []
    await until(lambda: bool(spool.entries))
    log.record_failure(model, "/predict", 2)
    await log.stop()
    assert failures(spool.entries) == [
        (model, "/predict", 10), (model, "/predict/batch", 5), (model, "/predict", 2),
    ]  # fmt: skip


async def test_failures_counted_while_others_are_written_are_written_too(
    spool: FakeSpool,
) -> None:
    log, model = make_log(spool), ModelVersion("v1", "revision", "fake")
    spool.gate.clear()
    log.record_failure(model, "/predict", 1)
    await until(lambda: spool.appends == 1)
    log.record_failure(model, "/predict", 2)
    spool.gate.set()
    await until(lambda: len(spool.entries) == 2)
    assert failures(spool.entries) == [(model, "/predict", 1), (model, "/predict", 2)]
    await log.stop()


async def test_failures_are_lost_without_an_error_when_the_spool_is_full(spool: FakeSpool) -> None:
    log = make_log(spool)
    spool.error = SpoolFull()
    log.record_failure(ModelVersion("v1", "revision", "fake"), "/predict", 1)
    await log.stop()
    assert spool.entries == []
