"""A Redis outage is counted each time and told once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from redis_connection import OutageLog


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


def test_an_outage_is_counted_each_time_and_told_at_its_start_and_end(
    told: list[logging.LogRecord],
) -> None:
    before = failures()
    log = OutageLog("part")
    log.succeeded()
    for _ in range(3):
        log.failed("lookup", ConnectionError("down"))
    log.succeeded()
    log.succeeded()
    assert failures() - before == 3
    assert [(one.levelname, one.getMessage().split(",")[0]) for one in told] == [
        ("ERROR", "part: Redis fails"),
        ("INFO", "part: Redis answers again"),
    ]


def test_the_next_outage_is_told_again(told: list[logging.LogRecord]) -> None:
    log = OutageLog("part")
    for _ in range(2):
        log.failed("lookup", ConnectionError("down"))
        log.succeeded()
    assert [one.levelname for one in told] == ["ERROR", "INFO"] * 2
