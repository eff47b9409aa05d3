"""How an A/B test went over time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.over_time import MAX_POINTS, AbOverTime, ab_over_time
from analytics.reader import Reader
from core.types import (
    SENTIMENTS,
)
from tests.integration.analytics.ab_history import END, START, History, give, reply


async def test_over_time_ends_where_the_test_is_and_narrows(engine: AsyncEngine) -> None:
    made = History(seed=9)
    for minute in range(200):
        at = START + timedelta(minutes=minute)
        made.compare(f"text {minute}", at)
        made.assign(f"subject {minute}", at=at)
    await made.write(engine)
    predictions = [one.v1.id for one in made.comparisons] + [one.id for one in made.predictions]
    await give(engine, [(one, made.numbers.choice(SENTIMENTS)) for one in predictions])
    until = END + timedelta(hours=1)
    told, over = await reply(engine), await ab_over_time(Reader(engine), until)
    for now, points in ((told.paired, over.paired), (told.randomised, over.randomised)):
        assert now is not None
        assert now.always_valid_interval is not None
        assert 20 <= len(points) <= MAX_POINTS
        last = points[-1]
        assert last.difference == now.accuracy_difference
        interval = (now.always_valid_interval.low, now.always_valid_interval.high)
        assert (last.low, last.high) == pytest.approx(interval)
        assert all(one.low <= one.difference <= one.high for one in points)
        assert [one.labelled for one in points] == sorted(one.labelled for one in points)
        assert last.high - last.low < points[0].high - points[0].low
    assert over.paired[-1].labelled == 200


async def test_over_time_without_labels_is_empty(engine: AsyncEngine) -> None:
    assert await ab_over_time(Reader(engine), END) == AbOverTime(paired=[], randomised=[])
    made = History(seed=10)
    made.compare("one")
    made.assign("subject")
    await made.write(engine)
    until = END + timedelta(hours=1)
    assert await ab_over_time(Reader(engine), until) == AbOverTime(paired=[], randomised=[])


async def test_over_time_takes_longer_buckets_for_longer_tests(engine: AsyncEngine) -> None:
    made = History(seed=11)
    for day in range(30):
        made.compare(f"text {day}", START - timedelta(days=day))
    await made.write(engine)
    await give(engine, [(one.v1.id, "positive") for one in made.comparisons])
    points = (await ab_over_time(Reader(engine), END + timedelta(hours=1))).paired
    assert len(points) == 30
    assert {one.time.hour for one in points} == {0}
