"""The circuit breaker: it counts every failure, and logs an outage once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from core.redis import (
    FAILURES,
    POOL_IS_BUSY,
    REDIS_FAILURES,
    REST_SECONDS,
    RedisCircuit,
    RedisDown,
)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """The log records of the test; BentoML can keep its loggers from pytest's own capture."""
    records: list[logging.LogRecord] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, recorder = logging.getLogger("bentoml.sentiment.redis"), Recorder()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(recorder)
    yield records
    logger.removeHandler(recorder)
    logger.setLevel(before)


def failures() -> float:
    return REGISTRY.get_sample_value("redis_errors_total", {"operation": "lookup"}) or 0.0


def call(circuit: RedisCircuit, error: BaseException | None = None) -> None:
    with circuit.calling("lookup"):
        if error is not None:
            raise error


def test_redis_that_reads_but_does_not_write_is_logged_once(
    logged: list[logging.LogRecord],
) -> None:
    """A replica, or a Redis whose memory is full."""
    circuit = RedisCircuit()
    for _ in range(20):
        with circuit.calling("lookup"), circuit.calling("rate_limit"):
            pass
        with pytest.raises(ReadOnlyError), circuit.calling("store"):
            raise ReadOnlyError("You can't write against a read only replica.")
    assert [record.levelname for record in logged] == ["WARNING"]
    with circuit.calling("store"):
        pass
    with circuit.calling("lookup"):
        pass
    assert [record.levelname for record in logged] == ["WARNING", "INFO"]


def test_outage_is_counted_each_time_and_logged_at_its_start_and_end(
    logged: list[logging.LogRecord],
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
    assert [(record.levelname, record.getMessage()) for record in logged] == [
        (
            "WARNING",
            "Redis fails, and the service goes on without it: ConnectionError: down",
        ),
        ("INFO", "Redis answers again"),
    ]


def test_second_outage_is_logged_again(logged: list[logging.LogRecord]) -> None:
    circuit = RedisCircuit()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            call(circuit, TimeoutError())
        call(circuit)
    assert [record.levelname for record in logged] == ["WARNING", "INFO"] * 2


def fail(circuit: RedisCircuit) -> None:
    for _ in range(FAILURES):
        with pytest.raises(ConnectionError):
            call(circuit, ConnectionError("down"))


def test_circuit_opens_after_failures_in_a_row() -> None:
    circuit = RedisCircuit()
    fail(circuit)
    before = failures()
    with pytest.raises(RedisDown), circuit.calling("lookup"):
        raise AssertionError("the circuit was not open")
    assert failures() - before == 1


async def test_circuit_tries_again_after_its_rest() -> None:
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


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RedisConnectionError(POOL_IS_BUSY)])
async def test_call_that_redis_had_no_part_in_closes_no_circuit(error: BaseException) -> None:
    circuit = RedisCircuit()
    for _ in range(FAILURES):  # in a row, but for what says nothing
        with pytest.raises(ConnectionError):
            call(circuit, ConnectionError("down"))
        with pytest.raises((type(error), RedisError)):
            call(circuit, error)
    with pytest.raises(RedisDown):
        call(circuit)
    await asyncio.sleep(REST_SECONDS)
    with pytest.raises((type(error), RedisError)):
        call(circuit, error)
    with pytest.raises(ConnectionError):
        call(circuit, ConnectionError("still down"))
    with pytest.raises(RedisDown):
        call(circuit)


def test_other_errors_do_not_open_the_circuit() -> None:
    circuit = RedisCircuit()
    for _ in range(2 * FAILURES):
        with pytest.raises(AssertionError, match="ours"):
            call(circuit, AssertionError("ours"))
    call(circuit)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to perform operation; the handler is closed"),
        ValueError("invalid literal for int() with base 10: b'abc'"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        TypeError("'>' not supported between instances of 'NoneType' and 'int'"),
    ],
)
def test_closed_transport_and_no_protocol_count_as_failures_of_redis(error: Exception) -> None:
    before = failures()
    circuit = RedisCircuit()
    for _ in range(FAILURES):
        with pytest.raises(REDIS_FAILURES, match=type(error).__name__):
            call(circuit, error)
    with pytest.raises(RedisDown):
        call(circuit)
    assert failures() - before == FAILURES + 1


def test_refused_command_is_no_outage_and_is_logged_once(logged: list[logging.LogRecord]) -> None:
    before = failures()
    circuit = RedisCircuit()
    refusals = (
        NoPermissionError("this user has no permissions to run the 'mget' command"),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    )
    for _ in range(2 * FAILURES):
        for refusal in refusals:
            with pytest.raises(type(refusal)):
                call(circuit, refusal)
        call(circuit)
    assert failures() - before == 4 * FAILURES
    refused = "Redis refuses MGET, and the service goes on without it: "
    assert [(record.levelname, record.getMessage()) for record in logged] == [
        ("ERROR", f"{refused}{type(refusal).__name__}: {refusal}") for refusal in refusals
    ]


def test_refusal_ends_an_outage(logged: list[logging.LogRecord]) -> None:
    circuit = RedisCircuit()
    for error in (ConnectionError("down"), ResponseError("MISCONF no disk")):
        with pytest.raises(type(error)):
            call(circuit, error)
    assert [record.levelname for record in logged] == ["WARNING", "ERROR", "INFO"]


def test_replica_that_stays_one_is_an_outage() -> None:
    circuit = RedisCircuit()
    for _ in range(FAILURES):
        with pytest.raises(ReadOnlyError):
            call(circuit, ReadOnlyError("You can't write against a read only replica."))
    with pytest.raises(RedisDown):
        call(circuit)
