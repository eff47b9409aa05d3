"""Prometheus gets how far the last hour has drifted from the week before it."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.drift_watch import measure, watch_drift
from analytics.reader import Reader
from core.postgres import create_engine
from core.types import Prediction, Sentiment
from tests.integration.predictions import PredictionWriter, make_prediction
from tests.waiting import until


def psi(version: str, feature: str, name: str = "model_drift_psi") -> float:
    value = REGISTRY.get_sample_value(name, {"version": version, "feature": feature})
    assert value is not None
    return value


def made(count: int, positives: float, since: datetime, span: timedelta) -> list[Prediction]:
    numbers = random.Random(3)
    predictions = []
    for _ in range(count):
        said: Sentiment = "positive" if numbers.random() < positives else "negative"
        other: Sentiment = "negative" if said == "positive" else "positive"
        scores: dict[Sentiment, float] = {said: 0.9, other: 0.1}
        created_at = since + span * numbers.random()
        predictions.append(make_prediction("A film.", scores=scores, created_at=created_at))
    return predictions


async def test_hour_that_differs_from_its_week_is_exported(engine: AsyncEngine) -> None:
    now = datetime.now(UTC)
    hour = now - timedelta(hours=1)
    week = made(1_500, 0.7, hour - timedelta(days=6), timedelta(days=6))
    await PredictionWriter(engine).write([*week, *made(1_500, 0.3, hour, timedelta(hours=1))])
    await measure(Reader(engine), now)
    assert psi("v1", "sentiment") > 0.2 > psi("v1", "sentiment", "model_drift_psi_noise")
    assert psi("v1", "text_characters") < 0.1
    # v2 has no predictions: NaN, which no alert exceeds.
    assert math.isnan(psi("v2", "sentiment"))


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
