"""A Redis outage is counted each time, told once, and soon costs nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from core.redis import FAILURES, REDIS_FAILURES, REST_SECONDS, RedisCircuit, RedisDown


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile; BentoML may keep its loggers from pytest's own capture."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, keeping = logging.getLogger("bentoml.sentiment.redis"), Keeping()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(keeping)
    yield records
    logger.removeHandler(keeping)
    logger.setLevel(before)


def failures() -> float:
    return REGISTRY.get_sample_value("redis_errors_total", {"operation": "lookup"}) or 0.0


def call(circuit: RedisCircuit, error: Exception | None = None) -> None:
    with circuit.calling("lookup"):
        if error is not None:
            raise error


def test_an_outage_is_counted_each_time_and_told_at_its_start_and_end(
    told: list[logging.LogRecord],
) -> None:
    before = failures()
    circuit = RedisCircuit()
    call(circuit)
    for _ in range(FAILURES - 1):
        with pytest.raises(ConnectionError):
            call(circuit, ConnectionError("down"))
    call(circuit)
    call(circuit)
    assert failures() - before == FAILURES - 1
    assert [(one.levelname, one.getMessage().split(",")[0]) for one in told] == [
        ("WARNING", "Redis fails"),
        ("INFO", "Redis answers again"),
    ]


def test_the_next_outage_is_told_again(told: list[logging.LogRecord]) -> None:
    circuit = RedisCircuit()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            call(circuit, TimeoutError())
        call(circuit)
    assert [one.levelname for one in told] == ["WARNING", "INFO"] * 2


def fail(circuit: RedisCircuit) -> None:
    for _ in range(FAILURES):
        with pytest.raises(ConnectionError):
            call(circuit, ConnectionError("down"))


def test_after_failures_in_a_row_it_is_not_asked_any_more() -> None:
    circuit = RedisCircuit()
    fail(circuit)
    before = failures()
    with pytest.raises(RedisDown), circuit.calling("lookup"):
        raise AssertionError("it was asked")
    assert failures() - before == 1


async def test_and_then_tried_again() -> None:
    circuit = RedisCircuit()
    fail(circuit)
    await asyncio.sleep(REST_SECONDS)
    with pytest.raises(ConnectionError):
        call(circuit, ConnectionError("still down"))
    with pytest.raises(RedisDown):
        call(circuit)
    await asyncio.sleep(REST_SECONDS)
    call(circuit)
    call(circuit)


def test_what_is_no_failure_of_redis_is_none_of_its() -> None:
    circuit = RedisCircuit()
    for _ in range(2 * FAILURES):
        with pytest.raises(ValueError, match="ours"):
            call(circuit, ValueError("ours"))
    call(circuit)


def test_a_transport_that_closes_under_a_command_is_a_failure_of_redis() -> None:
    before = failures()
    circuit = RedisCircuit()
    for _ in range(FAILURES):
        with pytest.raises(REDIS_FAILURES, match="the handler is closed"):
            call(circuit, RuntimeError("unable to perform operation; the handler is closed"))
    with pytest.raises(RedisDown):
        call(circuit)
    assert failures() - before == FAILURES + 1
