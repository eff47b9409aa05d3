"""Failures are counted beside predictions."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.reader import Reader
from analytics.scope import Scope
from analytics.summary import summary
from analytics.time_range import TimeRange
from analytics.timeseries import timeseries
from core.types import PREDICT_ENDPOINTS, VERSIONS, Failure, ModelVersion, Version
from core.uuid7 import new_id
from tests.integration.logs import spooled_log
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, tzinfo=UTC)


async def test_failures_equal_a_plain_count(engine: AsyncEngine) -> None:
    numbers = random.Random(1)
    made = [
        Failure(
            new_id(at), at, numbers.choice(PREDICT_ENDPOINTS),
            ModelVersion(numbers.choice(VERSIONS), "revision", "fake"), numbers.randint(1, 9),
        )
        for at in (START + timedelta(seconds=numbers.uniform(0, 200_000)) for _ in range(300))
    ]  # fmt: skip
    answered = make_prediction(created_at=START + timedelta(hours=1))
    writer = PredictionWriter(engine)
    for _ in range(2):  # as after a lost reply
        await writer.write([answered], [], made)
    for _ in range(12):
        ends = [START + timedelta(seconds=numbers.uniform(-9_000, 220_000)) for _ in range(2)]
        span, version = TimeRange(min(ends), max(ends)), numbers.choice([None, *VERSIONS])
        inside = [
            one for one in made
            if span.since <= one.created_at < span.until and version in (None, one.model.version)
        ]  # fmt: skip
        result = await summary(Reader(engine), Scope(span, version))
        assert result.failures == sum(one.texts for one in inside)
        points = (await timeseries(Reader(engine), Scope(span, version), "hour")).points
        expected: Counter[tuple[datetime, Version]] = Counter()
        for one in inside:
            hour = one.created_at.replace(minute=0, second=0, microsecond=0)
            expected[hour, one.model.version] += one.texts
        assert {(p.time, p.version): p.failures for p in points if p.failures} == expected
        assert sum(p.predictions for p in points) == result.total_predictions


async def test_failures_of_one_endpoint_and_half_second_are_one_row(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    model = ModelVersion("v2", "revision", "fake")
    async with spooled_log(tmp_path) as spooled:
        for _ in range(500):
            spooled.log.record_failure(model, "/predict", 1)
        spooled.log.record_failure(model, "/predict/batch", 100)
    await spooled.ship(engine)
    span = TimeRange(datetime.now(UTC) - timedelta(minutes=2), datetime.now(UTC))
    result = await summary(Reader(engine), Scope(span))
    assert (result.failures, result.total_predictions) == (600, 0)
    async with engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT texts FROM failures ORDER BY texts")
        assert [row.texts for row in rows] == [100, 500]
    [point] = (await timeseries(Reader(engine), Scope(span), "day")).points
    assert (point.failures, point.average_confidence) == (600, None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_range_without_failures_has_a_count_of_zero(
    engine: AsyncEngine, version: Version
) -> None:
    span = TimeRange(START, START + timedelta(days=3))
    assert (await summary(Reader(engine), Scope(span, version))).failures == 0
