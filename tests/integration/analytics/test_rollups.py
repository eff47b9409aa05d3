"""Rollups agree with the rows that they count, also when batches are written repeatedly."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.confidence import confidence
from analytics.drift import drift
from analytics.latency import latency
from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import to_record
from analytics.log.writer import store
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.summary import sentiment_counts, summary
from analytics.time_range import TimeRange
from analytics.timeseries import BUCKETS, BucketName, timeseries
from core.postgres import create_engine
from core.types import PREDICT_ENDPOINTS, SENTIMENTS, VERSIONS, Prediction, Sentiment, Version
from loadtest.bench.seed_predictions import seed_history
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 3


def history(count: int, seed: int) -> list[Prediction]:
    """Predictions over three days, some on the edges of minutes, hours and days."""
    numbers = random.Random(seed)
    made = []
    for _ in range(count):
        at = START + timedelta(seconds=numbers.uniform(0, DAYS * 86_400))
        if numbers.random() < 0.2:
            at = at.replace(second=0, microsecond=0, minute=numbers.choice([0, at.minute]))
        positive = numbers.random()
        made.append(
            make_prediction(
                version=numbers.choice(VERSIONS),
                scores={"negative": 1 - positive, "positive": positive},
                created_at=at,
                endpoint=numbers.choice(PREDICT_ENDPOINTS),
                cache_hit=numbers.random() < 0.3,
                latency_ms=numbers.lognormvariate(2, 1.5),
            )
        )
    return made


def some_span(numbers: random.Random) -> TimeRange:
    """Any range about the history, its ends on an edge now and then."""
    ends = [START + timedelta(seconds=numbers.uniform(-40_000, 300_000)) for _ in range(2)]
    for index, end in enumerate(ends):
        if numbers.random() < 0.3:
            ends[index] = end.replace(minute=0, second=0, microsecond=0)
    since, until = sorted(ends)
    return TimeRange(since, until + timedelta(microseconds=1))


def within(
    made: Sequence[Prediction], span: TimeRange, version: Version | None
) -> list[Prediction]:
    return [
        p for p in made if span.since <= p.created_at < span.until and version in (None, p.version)
    ]


async def total(engine: AsyncEngine, bucket_seconds: int) -> int:
    statement = text(
        "SELECT coalesce(sum(negative + neutral + positive), 0)::bigint FROM rollups "
        f"WHERE bucket_seconds = {bucket_seconds}"
    )
    async with engine.connect() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def test_any_range_gives_what_a_plain_computation_gives(engine: AsyncEngine) -> None:
    made = history(3_000, seed=1)
    writer = PredictionWriter(engine)
    for start in range(0, len(made), 700):  # late rows in every batch
        await writer.write(made[start : start + 700], [])
    reader, numbers = Reader(engine), random.Random(2)
    for _ in range(25):
        span, version = some_span(numbers), numbers.choice([None, *VERSIONS])
        expected = within(made, span, version)
        result = await summary(reader, Scope(span, version))
        assert result.total_predictions == len(expected)
        assert result.by_version == Counter(p.version for p in expected)
        said = Counter(p.sentiment for p in expected)
        assert await sentiment_counts(reader, Scope(span, version)) == {
            name: said[name] for name in SENTIMENTS
        }
        if expected:
            confidences = [p.confidence for p in expected]
            assert result.average_confidence == pytest.approx(np.mean(confidences), rel=1e-6)
            latencies = [p.latency_ms for p in expected]
            assert result.average_latency_ms == pytest.approx(np.mean(latencies), rel=1e-6)
        for of in (await latency(reader, Scope(span, version))).percentiles:
            exact = [
                p.latency_ms
                for p in expected
                if (p.version, p.cache_hit) == (of.version, of.cache_hit)
            ]
            assert of.predictions == len(exact)
            for fraction, found in ((0.5, of.p50_ms), (0.95, of.p95_ms), (0.99, of.p99_ms)):
                plain = np.quantile(exact, fraction, method="inverted_cdf")
                assert found == pytest.approx(plain, rel=0.0101)


@pytest.mark.parametrize("bucket", BUCKETS)
async def test_a_timeseries_gives_what_a_plain_computation_gives(
    engine: AsyncEngine, bucket: BucketName
) -> None:
    made = history(1_500, seed=3)
    await PredictionWriter(engine).write(made)
    numbers, seconds = random.Random(4), int(BUCKETS[bucket].total_seconds())
    for _ in range(6):
        span, version = some_span(numbers), numbers.choice([None, *VERSIONS])
        expected: dict[tuple[float, Version], list[Prediction]] = {}
        for p in within(made, span, version):
            start = p.created_at.timestamp() // seconds * seconds
            expected.setdefault((start, p.version), []).append(p)
        points = (await timeseries(Reader(engine), Scope(span, version), bucket)).points
        assert [(p.time.timestamp(), p.version) for p in points] == sorted(expected)
        for point in points:
            there = expected[point.time.timestamp(), point.version]
            assert point.predictions == len(there) == sum(point.sentiments.values())
            plain = np.quantile([p.latency_ms for p in there], 0.95, method="inverted_cdf")
            assert point.p95_ms == pytest.approx(plain, rel=0.0101)
            inside = min(span.until, point.time + BUCKETS[bucket]) - max(span.since, point.time)
            assert point.per_second == pytest.approx(len(there) / inside.total_seconds())


async def test_confidence_gives_what_a_plain_computation_gives(engine: AsyncEngine) -> None:
    made = history(1_000, seed=7)
    await PredictionWriter(engine).write(made)
    numbers = random.Random(8)
    for _ in range(6):
        span, version = some_span(numbers), numbers.choice([None, *VERSIONS])
        result = (await confidence(Reader(engine), Scope(span, version))).versions
        expected = within(made, span, version)
        assert [of.version for of in result] == sorted({p.version for p in expected})
        for of in result:
            # PostgreSQL keeps a confidence in single precision.
            sure = np.array(
                [p.confidence for p in expected if p.version == of.version],
                np.float32,
            ).astype(float)
            assert of.predictions == len(sure)
            assert of.mean == pytest.approx(sure.mean(), rel=1e-6)
            plain, _ = np.histogram(sure, bins=np.arange(51) / 50)
            found = {round(each.lower * 50): each.predictions for each in of.histogram}
            assert found == {index: n for index, n in enumerate(plain) if n}


async def test_drift_is_seen_where_there_is_some_and_nowhere_else(engine: AsyncEngine) -> None:
    middle, numbers = START + timedelta(days=1), random.Random(9)
    made = []
    for hours, positives in ((-12, 0.7), (12, 0.3)):
        for _ in range(1_500):
            sure = 0.5 + numbers.random() / 2
            said: Sentiment = "positive" if numbers.random() < positives else "negative"
            other: Sentiment = "negative" if said == "positive" else "positive"
            made.append(
                make_prediction(
                    "word " * numbers.randint(1, 60),
                    scores={said: sure, other: 1 - sure},
                    created_at=middle + timedelta(hours=hours * numbers.random()),
                )
            )
    await PredictionWriter(engine).write(made)
    reader = Reader(engine)
    current = TimeRange(middle, middle + timedelta(hours=12))
    before = TimeRange(middle - timedelta(hours=12), middle)
    result = await drift(reader, Scope(current), before)
    assert (result.reference_since, result.since) == (before.since, current.since)
    assert result.sentiment.verdict == "significant"
    # PSI of 0.7 and 0.3: two cells, each 0.4 times the logarithm of 7 / 3.
    assert result.sentiment.psi == pytest.approx(0.8 * np.log(7 / 3), abs=0.15)
    assert result.confidence.verdict == result.text_characters.verdict == "stable"
    assert result.sentiment.current_count == result.confidence.reference_count == 1_500
    nothing = await drift(reader, Scope(current, "v2"), before)
    assert (nothing.sentiment.verdict, nothing.sentiment.psi) == ("too_few", None)


async def test_predictions_written_repeatedly_are_counted_once(engine: AsyncEngine) -> None:
    made = history(300, seed=5)
    # Three concurrent writers share predictions, as after crashes between a commit and its reply.
    engines = [create_engine(engine.url, pool_size=1, timeout_seconds=20) for _ in range(3)]
    parts = [made[:200], made[100:], made[50:250]]
    for _ in range(2):
        await asyncio.gather(
            *(PredictionWriter(own).write(part) for own, part in zip(engines, parts, strict=True))
        )
    for own in engines:
        await own.dispose()
    for seconds in (60, 3_600, 86_400):
        assert await total(engine, seconds) == 300


class Crash(Exception):
    pass


async def test_a_crash_before_the_commit_leaves_no_rows_and_no_rollups(
    engine: AsyncEngine,
) -> None:
    writer = PredictionWriter(engine)
    first, second = history(2, seed=6)
    await writer.write([first], [])
    with pytest.raises(Crash):
        await store_and_crash(engine, second)
    assert await total(engine, 60) == 1
    await writer.write([second], [])
    assert await total(engine, 60) == 2


async def store_and_crash(engine: AsyncEngine, prediction: Prediction) -> None:
    keys, record = DimensionKeys(engine), to_record(prediction, "hash")
    await keys.resolve([record])
    async with engine.begin() as connection:
        await store(connection, keys, [record])
        raise Crash


async def test_a_seeded_history_is_counted_completely(engine: AsyncEngine) -> None:
    batches = [batch async for batch in seed_history(engine, 45_000, timedelta(days=2), seed=0)]
    assert [batch.predictions for batch in batches] == [20_000, 20_000, 5_000]
    now = datetime.now(UTC)
    span = TimeRange(now - timedelta(days=4), now + timedelta(minutes=1))
    result = await summary(Reader(engine), Scope(span))
    assert result.total_predictions == 45_000
    assert set(result.by_version) == set(VERSIONS)
