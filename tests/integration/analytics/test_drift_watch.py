"""Prometheus gets how far the last hour has drifted from the week before it."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.content import ContentSampler, sketches_of
from analytics.drift import drift
from analytics.drift_watch import measure, watch_drift
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core.postgres import create_engine
from tests.integration.predictions import PredictionWriter, made_of, make_prediction
from tests.waiting import until


def psi(version: str, feature: str, name: str = "model_drift_psi") -> float:
    value = REGISTRY.get_sample_value(name, {"version": version, "feature": feature})
    assert value is not None
    return value


async def test_hour_that_differs_from_its_week_is_exported(engine: AsyncEngine) -> None:
    now = datetime.now(UTC)
    hour = now - timedelta(hours=1)
    week = made_of(1_500, 0.7, hour - timedelta(days=6), timedelta(days=6))
    await PredictionWriter(engine).write([*week, *made_of(1_500, 0.3, hour, timedelta(hours=1))])
    await measure(Reader(engine), now)
    assert psi("v1", "sentiment") > 0.2 > psi("v1", "sentiment", "model_drift_psi_noise")
    assert psi("v1", "text_characters") < 0.1
    # v2 has no predictions: NaN, which no alert exceeds.
    assert math.isnan(psi("v2", "sentiment"))


async def test_content_that_changes_is_sampled_stored_and_exported(engine: AsyncEngine) -> None:
    sampler = ContentSampler(engine, texts_per_second=1e9)
    words = ["the", "film", "was", "fine", "and", "my", "dog", "did", "like", "a", "bit"]
    numbers = random.Random(4)
    between = datetime.now(UTC)
    for tokens_a_word in (1.2, 2.5):
        between = datetime.now(UTC)
        await asyncio.sleep(0.002)  # an id tells its time in milliseconds
        for _ in range(120):
            count = numbers.randint(3, 12)
            text = " ".join(numbers.choices(words, k=count))
            made = make_prediction(text, created_at=datetime.now(UTC))
            sampler.offer([replace(made, token_count=2 + round(tokens_a_word * count))])
            sampler.offer([replace(made, cache_hit=True), replace(made, truncated=True)])
        await sampler.store()
        await asyncio.sleep(0.002)
    now = datetime.now(UTC)
    before = TimeRange(now - timedelta(days=7), between)
    found = (await drift(Reader(engine), Scope(TimeRange(between, now)), before)).content
    assert (found.reference_count, found.current_count, found.verdict) == (120, 120, "significant")
    assert found.features[0].name == "tokens_per_word"
    await measure(Reader(engine), between + timedelta(hours=1))
    assert psi("v1", "content") > 0.1
    assert psi("v1", "content") > psi("v1", "content", "model_drift_psi_noise")
    assert math.isnan(psi("v2", "content"))


async def test_sketch_of_few_texts_is_not_stored(engine: AsyncEngine) -> None:
    sampler = ContentSampler(engine, texts_per_second=1e9)
    span = TimeRange(datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1))
    for stored in (0, 1):
        for _ in range(10):
            sampler.offer([make_prediction("A film.", created_at=datetime.now(UTC))])
        await sampler.store()
        assert len(await sketches_of(Reader(engine), Scope(span))) == stored


async def test_sketch_of_an_outage_waits(engine: AsyncEngine, database_url: URL) -> None:
    nowhere = create_engine(
        database_url.set(query={"host": "/nowhere"}), pool_size=1, timeout_seconds=1
    )
    sampler = ContentSampler(nowhere, texts_per_second=1e9)
    for _ in range(20):
        sampler.offer([make_prediction("A film.", created_at=datetime.now(UTC))])
    await sampler.store()
    sampler._engine = engine
    await sampler.store()
    await sampler.store()
    span = TimeRange(datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1))
    assert len(await sketches_of(Reader(engine), Scope(span, "v1"))) == 1
    assert not await sketches_of(Reader(engine), Scope(span, "v2"))
    await nowhere.dispose()


async def test_outage_is_logged_and_survived(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = create_engine(
        database_url.set(query={"host": "/nowhere"}), pool_size=1, timeout_seconds=1
    )
    watching = asyncio.create_task(watch_drift(Reader(nowhere)))
    await until(lambda: "drift was not measured" in caplog.text)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await nowhere.dispose()
