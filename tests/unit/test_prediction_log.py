"""The prediction log between the request's path and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from analytics.prediction_log import PredictionLog
from ids import new_id
from tests.unit.conftest import MakeLog
from tests.unit.fakes import FakeWriter, counter, prediction
from values import Comparison


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
    comparison = Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), v1, v2)
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
    before = counter("prediction_log_dropped_total")
    writer.errors = [ValueError("a bug of ours")]
    log.record([prediction(), prediction()])
    assert await log.flush(5)
    assert counter("prediction_log_dropped_total") - before == 2
    log.record([prediction()])
    assert await log.flush(5)
    assert len(writer.taken) == 1


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


async def test_with_nothing_to_write_flush_is_done_at_once(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    assert await make_log().flush(0.5)
    assert writer.batches == 0


async def test_stopping_does_not_wait_for_ever(writer: FakeWriter) -> None:
    log = PredictionLog(writer, flush_seconds=0.01, max_pending=100)
    log.start()
    writer.gate.clear()
    log.record([prediction()])
    async with asyncio.timeout(5):
        await log.stop(0.05)
    assert writer.taken == []
