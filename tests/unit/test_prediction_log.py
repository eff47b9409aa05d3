"""The prediction log between the request's path and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from uuid_utils.compat import uuid7

from analytics.prediction_log import PredictionLog
from tests.unit.fakes import classification
from values import Comparison, Prediction


def prediction(text: str = "text") -> Prediction:
    return Prediction(
        uuid7(), datetime.now(UTC), "/predict", "v1", "fake", text, classification(text), False, 1.0
    )


class FakeWriter:
    """Takes what it is given, unless it is told to fail."""

    def __init__(self) -> None:
        self.taken: list[Prediction] = []
        self.comparisons: list[Comparison] = []
        self.batches = 0
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(
        self, predictions: Sequence[Prediction], comparisons: Sequence[Comparison]
    ) -> None:
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.batches += 1
        self.taken.extend(predictions)
        self.comparisons.extend(comparisons)


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


MakeLog = Callable[..., PredictionLog]


@pytest.fixture
async def make_log(writer: FakeWriter) -> AsyncIterator[MakeLog]:
    logs = []

    def make(*, max_pending: int = 1_000) -> PredictionLog:
        log = PredictionLog(writer, flush_seconds=0.01, max_pending=max_pending)
        log.start()
        logs.append(log)
        return log

    yield make
    for log in logs:
        await log.stop(0.01)


def dropped() -> float:
    return REGISTRY.get_sample_value("prediction_log_dropped_total") or 0.0


async def test_what_is_recorded_together_is_written_together(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log()
    made = [prediction() for _ in range(50)]
    for one in made:
        log.record([one])
    assert await log.flush(5)
    assert writer.taken == made
    assert writer.batches == 1


async def test_a_comparison_goes_with_its_predictions(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log()
    v1, v2 = prediction(), prediction()
    comparison = Comparison(uuid7(), datetime.now(UTC), v1, v2)
    log.record([v1, v2], comparison)
    assert await log.flush(5)
    assert (writer.taken, writer.comparisons) == ([v1, v2], [comparison])


async def test_an_outage_is_waited_out_and_the_order_kept(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log()
    writer.errors = [OSError("down"), TimeoutError("still down")]
    made = [prediction(str(number)) for number in range(5)]
    for one in made:
        log.record([one])
    assert await log.flush(10)
    assert writer.taken == made
    assert writer.errors == []


async def test_rows_that_cannot_be_stored_are_dropped_and_counted(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log()
    before = dropped()
    writer.errors = [ValueError("a bug of ours")]
    log.record([prediction(), prediction()])
    assert await log.flush(5)
    assert dropped() - before == 2
    log.record([prediction()])
    assert await log.flush(5)
    assert len(writer.taken) == 1


async def test_past_its_bound_the_oldest_go_and_are_counted(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    before = dropped()
    log = make_log(max_pending=10)
    made = [prediction(str(number)) for number in range(25)]
    for one in made:
        log.record([one])
    assert await log.flush(5)
    assert writer.taken == made[-10:]
    assert dropped() - before == 15


async def test_flush_says_when_it_was_not_taken(writer: FakeWriter, make_log: MakeLog) -> None:
    log = make_log()
    writer.gate.clear()
    log.record([prediction()])
    assert not await log.flush(0.05)
    writer.gate.set()
    assert await log.flush(5)


async def test_stopping_writes_what_waits(writer: FakeWriter) -> None:
    log = PredictionLog(writer, flush_seconds=60, max_pending=100)
    log.start()
    log.record([prediction()])
    await log.stop(5)
    assert len(writer.taken) == 1
