"""The analytics queries against a plain computation over the same rows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.reader import Reader
from analytics.recent import LoggedPrediction, recent
from analytics.scope import Scope
from analytics.summary import sentiment_distribution, summary
from analytics.time_range import TimeRange
from core.errors import DatabaseUnavailable
from core.postgres import create_engine
from core.types import VERSIONS, Prediction, Version
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, tzinfo=UTC)
SPAN = TimeRange(START, START + timedelta(hours=1))


def history(count: int, seed: int) -> list[Prediction]:
    """Predictions in and around `SPAN`, its two edges included."""
    numbers = random.Random(seed)
    minutes = [0.0, 60.0, *(numbers.uniform(-20, 80) for _ in range(count - 2))]
    made = []
    for minute in minutes:
        positive = numbers.choice([0.125, 0.25, 0.75, 0.875])
        made.append(
            make_prediction(
                version=numbers.choice(VERSIONS),
                scores={"negative": 1 - positive, "positive": positive},
                created_at=START + timedelta(minutes=minute),
                cache_hit=numbers.random() < 0.3,
                latency_ms=numbers.choice([0.5, 8.0, 64.0]),
            )
        )
    return made


@pytest.mark.parametrize("version", [None, "v1", "v2"])
async def test_numbers_equal_a_plain_computation(
    engine: AsyncEngine, version: Version | None
) -> None:
    made = history(200, seed=7)
    await PredictionWriter(engine).write(made)
    expected = [
        p for p in made if SPAN.since <= p.created_at < SPAN.until and version in (None, p.version)
    ]
    count = len(expected)
    assert 20 < count < 200
    reader = Reader(engine)

    result = await summary(reader, Scope(SPAN, version))
    assert result.total_predictions == count
    assert sum(result.by_version.values()) == count
    assert result.average_confidence == pytest.approx(sum(p.confidence for p in expected) / count)
    assert result.average_latency_ms == pytest.approx(sum(p.latency_ms for p in expected) / count)
    assert result.cache_hit_rate == pytest.approx(100 * sum(p.cache_hit for p in expected) / count)

    shares = await sentiment_distribution(reader, Scope(SPAN, version))
    assert shares.total_predictions == count
    for sentiment, share in shares.distribution.items():
        said = sum(p.sentiment == sentiment for p in expected)
        assert share.count == said
        assert share.percent == pytest.approx(100 * said / count)

    page = await recent(reader, Scope(SPAN, version), 15)
    newest = sorted(expected, key=lambda p: (p.created_at, p.id), reverse=True)[:15]
    assert [row.id for row in page.predictions] == [p.id for p in newest]
    assert "text" not in page.predictions[0].model_dump()


@pytest.mark.parametrize("version", [None, "v1", "v2"])
async def test_pages_cover_the_whole_range_newest_first(
    engine: AsyncEngine, version: Version | None
) -> None:
    # Many in one millisecond, over two days, and twelve at the very same moment.
    moments = [SPAN.since + timedelta(microseconds=300 * n) for n in range(25)]
    moments += [SPAN.since + timedelta(minutes=7)] * 12 + [SPAN.since - timedelta(hours=20)]
    made = [make_prediction(created_at=at, version=v) for at in moments for v in VERSIONS]
    await PredictionWriter(engine).write(made)
    expected = sorted(
        (p for p in made if p.created_at >= SPAN.since and version in (None, p.version)),
        key=lambda p: p.id,
        reverse=True,
    )
    found: list[LoggedPrediction] = []
    before = None
    while True:
        page = await recent(Reader(engine), Scope(SPAN, version), 7, before)
        found += page.predictions
        before = page.next_before
        if before is None:
            break
        assert len(page.predictions) == 7
    assert [row.id for row in found] == [p.id for p in expected]
    times = [row.created_at for row in found]
    assert times == sorted(times, reverse=True)


async def test_range_includes_since_and_excludes_until(engine: AsyncEngine) -> None:
    tick = timedelta(microseconds=1)
    times = [SPAN.since - tick, SPAN.since, SPAN.until - tick, SPAN.until]
    made = [make_prediction(created_at=time) for time in times]
    await PredictionWriter(engine).write(made)
    reader = Reader(engine)
    page = await recent(reader, Scope(SPAN), 10)
    assert [row.created_at for row in page.predictions] == [times[2], times[1]]
    assert (await summary(reader, Scope(SPAN))).total_predictions == 2
    assert (await sentiment_distribution(reader, Scope(SPAN))).total_predictions == 2


async def test_recent_prediction_has_no_text(engine: AsyncEngine) -> None:
    made = make_prediction(
        "A secret.",
        version="v2",
        scores={"neutral": 0.75, "negative": 0.125, "positive": 0.125},
        created_at=START,
        endpoint="/predict/ab",
        cache_hit=True,
        latency_ms=2.5,
    )
    await PredictionWriter(engine, "full").write([made])
    [result] = (await recent(Reader(engine), Scope(SPAN), 10)).predictions
    assert result.model_dump() == {
        "id": made.id,
        "created_at": START,
        "endpoint": "/predict/ab",
        "sentiment": "neutral",
        "confidence": 0.75,
        "latency_ms": 2.5,
        "cache_hit": True,
        "model_version": "v2",
        "model_revision": "v2-revision",
        "truncated": False,
        "token_count": 5,
    }


async def test_averages_of_many_rows_are_exact(engine: AsyncEngine) -> None:
    # In PostgreSQL's REAL the sum of so many would be off by 0.3 %. Asked for is part of a minute,
    # which is answered from the rows.
    within = TimeRange(START + timedelta(seconds=10), START + timedelta(seconds=50))
    at = START + timedelta(seconds=30)
    made = [
        make_prediction(scores={"positive": 0.9, "negative": 0.1}, created_at=at)
        for _ in range(50_000)
    ]
    await PredictionWriter(engine).write(made)
    result = await summary(Reader(engine), Scope(within))
    assert result.total_predictions == 50_000
    assert result.average_confidence == pytest.approx(0.9, rel=1e-6)
    assert result.average_latency_ms == pytest.approx(12.5, rel=1e-6)


async def test_empty_range_has_no_averages(engine: AsyncEngine) -> None:
    reader = Reader(engine)
    result = await summary(reader, Scope(SPAN))
    assert (result.total_predictions, result.by_version) == (0, {})
    assert result.average_confidence is result.average_latency_ms is None
    assert result.cache_hit_rate is None
    reply = await sentiment_distribution(reader, Scope(SPAN))
    assert (reply.total_predictions, reply.distribution["positive"].percent) == (0, 0)
    assert (await recent(reader, Scope(SPAN), 10)).predictions == []


async def test_exhausted_pool_is_unavailable_not_a_hang(engine: AsyncEngine) -> None:
    small = create_engine(engine.url, pool_size=1, timeout_seconds=0.2)
    async with small.connect():
        with pytest.raises(DatabaseUnavailable):
            await summary(Reader(small), Scope(SPAN))
    await small.dispose()
