"""The prediction log holds so much and no more; what it drops is counted."""

from __future__ import annotations

from datetime import UTC, datetime

from analytics.prediction_log import MAX_BATCH_PREDICTIONS
from ids import new_id
from tests.unit.conftest import MakeLog
from tests.unit.fakes import FakeWriter, counter, prediction
from values import Comparison


async def test_past_its_bound_the_oldest_go_and_are_counted(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    before = counter("prediction_log_dropped_total")
    log = make_log(max_pending=10)
    made = [prediction(str(number)) for number in range(25)]
    for one in made:
        log.record([one])
    assert await log.flush(5)
    assert writer.taken == made[-10:]
    assert counter("prediction_log_dropped_total") - before == 15


async def test_entries_are_dropped_whole(writer: FakeWriter, make_log: MakeLog) -> None:
    before = counter("prediction_log_dropped_total")
    log = make_log(max_pending=4)
    old = [prediction(), prediction()]
    log.record(old, Comparison(new_id(datetime.now(UTC)), datetime.now(UTC), *old))
    new = [prediction() for _ in range(3)]
    log.record(new)
    assert await log.flush(5)
    assert (writer.taken, writer.comparisons) == (new, [])
    assert counter("prediction_log_dropped_total") - before == 2


async def test_one_request_larger_than_the_bound_is_still_written(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    before = counter("prediction_log_dropped_total")
    log = make_log(max_pending=2)
    made = [prediction() for _ in range(5)]
    log.record(made)
    assert await log.flush(5)
    assert writer.taken == made
    assert counter("prediction_log_dropped_total") == before


async def test_a_long_queue_is_written_in_bounded_batches(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log(max_pending=2 * MAX_BATCH_PREDICTIONS)
    one = prediction()
    for _ in range(MAX_BATCH_PREDICTIONS + 1):
        log.record([one])
    assert await log.flush(5)
    assert len(writer.taken) == MAX_BATCH_PREDICTIONS + 1
    assert writer.batches == 2


async def test_what_waits_is_shown_until_it_is_written(
    writer: FakeWriter, make_log: MakeLog
) -> None:
    log = make_log()
    writer.gate.clear()
    log.record([prediction(), prediction()])
    assert counter("prediction_log_pending") == 2
    writer.gate.set()
    assert await log.flush(5)
    assert counter("prediction_log_pending") == 0
