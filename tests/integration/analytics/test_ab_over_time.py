"""The difference in accuracy and its interval over time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.over_time import MAX_POINTS, AbOverTime, ab_over_time
from analytics.reader import Reader
from core.types import SENTIMENTS
from tests.integration.analytics.ab_history import END, START, History, give_at_once, reply


async def test_last_point_equals_the_test_and_the_interval_narrows(engine: AsyncEngine) -> None:
    made = History(seed=9)
    for minute in range(200):
        at = START + timedelta(minutes=minute)
        made.compare(f"text {minute}", at)
        made.assign(f"subject {minute}", at=at)
    await made.write(engine)
    predictions = [pair.v1.id for pair in made.comparisons]
    predictions += [prediction.id for prediction in made.predictions]
    labels = {id_: made.numbers.choice(SENTIMENTS) for id_ in predictions}
    await give_at_once(engine, list(labels.items()))
    until = END + timedelta(hours=1)
    test, over = await reply(engine), await ab_over_time(Reader(engine), until)
    for now, points in ((test.paired, over.paired), (test.randomised, over.randomised)):
        assert now is not None
        assert now.always_valid_interval is not None
        assert 20 <= len(points) <= MAX_POINTS
        last = points[-1]
        assert last.difference == now.accuracy_difference
        interval = (now.always_valid_interval.low, now.always_valid_interval.high)
        assert (last.low, last.high) == pytest.approx(interval)
        assert all(point.low <= point.difference <= point.high for point in points)
        assert [point.labelled for point in points] == sorted(point.labelled for point in points)
        assert last.high - last.low < points[0].high - points[0].low
    assert over.paired[-1].labelled == 200


async def test_test_without_labels_has_no_points(engine: AsyncEngine) -> None:
    assert await ab_over_time(Reader(engine), END) == AbOverTime(paired=[], randomised=[])
    made = History(seed=10)
    made.compare("one")
    made.assign("subject")
    await made.write(engine)
    until = END + timedelta(hours=1)
    assert await ab_over_time(Reader(engine), until) == AbOverTime(paired=[], randomised=[])


async def test_longer_test_has_longer_buckets(engine: AsyncEngine) -> None:
    made = History(seed=11)
    for day in range(30):
        made.compare(f"text {day}", START - timedelta(days=day))
    await made.write(engine)
    await give_at_once(engine, [(pair.v1.id, "positive") for pair in made.comparisons])
    points = (await ab_over_time(Reader(engine), END + timedelta(hours=1))).paired
    assert len(points) == 30
    assert {point.time.hour for point in points} == {0}
