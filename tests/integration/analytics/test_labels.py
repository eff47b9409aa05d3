"""Labels change calibration, and accuracy is estimated where there are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from scipy.stats import entropy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.confidence import confidence
from analytics.drift import drift
from analytics.feedback.store import FeedbackStore
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core.types import PREDICT_ENDPOINTS, SENTIMENTS, VERSIONS, Prediction, Sentiment, Version
from tests.integration.analytics.ab_history import give_at_once
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
HOURS = 5


NO_SPOOL = Path("/nowhere")


def some_prediction(numbers: random.Random, sure: float | None = None) -> Prediction:
    sure = 0.5 + numbers.random() / 2 if sure is None else sure
    said: Sentiment = numbers.choice(("negative", "positive"))
    other: Sentiment = "negative" if said == "positive" else "positive"
    return make_prediction(
        version=numbers.choice(VERSIONS),
        scores={said: sure, other: 1 - sure},
        created_at=START + timedelta(seconds=numbers.uniform(0, HOURS * 3_600)),
        endpoint=numbers.choice(PREDICT_ENDPOINTS),
        cache_hit=numbers.random() < 0.3,
    )


async def give_feedback(
    engine: AsyncEngine, made: Sequence[Prediction], count: int, numbers: random.Random
) -> dict[UUID, Sentiment]:
    """Give late, repeated and corrected labels at once; return the last of each prediction."""
    store = FeedbackStore(engine, NO_SPOOL)
    latest: dict[UUID, Sentiment] = {}
    for _ in range(count // 5):
        # No two of one prediction at once, so that the last one is known.
        labels = {p.id: numbers.choice(SENTIMENTS) for p in numbers.sample(made, 5)}
        await asyncio.gather(*(store.add(*item) for item in labels.items()))
        latest |= labels
    return latest


async def test_calibration_equals_a_plain_computation(engine: AsyncEngine) -> None:
    numbers = random.Random(1)
    made = [some_prediction(numbers) for _ in range(150)]
    await PredictionWriter(engine).write(made)
    latest = await give_feedback(engine, made, 200, numbers)
    for _ in range(15):
        ends = [START + timedelta(seconds=numbers.uniform(-600, HOURS * 3_700)) for _ in range(2)]
        span = TimeRange(min(ends), max(ends))
        result = (await confidence(Reader(engine), Scope(span))).versions
        for of in result:
            there = [
                p for p in made
                if p.version == of.version and span.since <= p.created_at < span.until
            ]  # fmt: skip
            plain = plain_entropy(there)
            assert of.mean_entropy_bits == pytest.approx(plain, abs=1e-6)
            labelled = [p for p in there if p.id in latest]
            if not labelled:
                assert of.calibration is None
                continue
            assert of.calibration is not None
            right = sum(latest[p.id] == p.sentiment for p in labelled)
            assert of.calibration.count == len(labelled)
            assert of.calibration.accuracy == pytest.approx(right / len(labelled))
            assert of.calibration.error == pytest.approx(plain_error(labelled, latest), abs=1e-6)
            assert sum(point.count for point in of.calibration.curve) == len(labelled)


def plain_entropy(made: Sequence[Prediction]) -> float:
    return float(np.mean([entropy(list(p.scores.values()), base=2) for p in made]))


def plain_error(labelled: Sequence[Prediction], latest: Mapping[UUID, Sentiment]) -> float:
    """The expected calibration error over ten bins, prediction by prediction."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p in labelled:
        sure = float(np.float32(p.confidence))
        right = latest[p.id] == p.sentiment
        bins.setdefault(min(int(sure * 10), 9), []).append((sure, right))
    off = sum(abs(sum(sure - right for sure, right in one)) for one in bins.values())
    return off / len(labelled)


async def test_repeated_and_corrected_labels_count_once(engine: AsyncEngine) -> None:
    made = make_prediction(scores={"positive": 0.9, "negative": 0.1}, created_at=START)
    await PredictionWriter(engine).write([made])
    store = FeedbackStore(engine, NO_SPOOL)
    expected: list[tuple[Sentiment, int]] = [
        ("positive", 1), ("positive", 1), ("neutral", 0), ("negative", 0), ("positive", 1),
    ]  # fmt: skip
    for label, correct in expected:
        await asyncio.gather(*(store.add(made.id, label) for _ in range(3)))
        async with engine.connect() as connection:
            counted = await connection.execute(
                text("SELECT bucket_seconds, labelled, correct, confidence_sum FROM label_rollups")
            )
            assert sorted(map(tuple, counted)) == [
                (seconds, 1, correct, pytest.approx(0.9)) for seconds in (60, 3_600, 86_400)
            ]


async def test_accuracy_is_estimated_for_predictions_without_labels(engine: AsyncEngine) -> None:
    """Texts become harder, and the estimate follows their true accuracy."""
    numbers = random.Random(4)
    middle = START + timedelta(hours=HOURS)
    truth: dict[UUID, Sentiment] = {}
    made: dict[Version, list[Prediction]] = {"v1": [], "v2": []}
    # v1 is calibrated; v2 is overconfident and has no labels.
    for hours, lowest in ((-1, 0.8), (1, 0.5)):
        for number in range(3_000):
            sure = numbers.uniform(lowest, 1)
            version: Version = "v1" if number % 2 else "v2"
            right = numbers.random() < (sure if version == "v1" else 0.5 + (sure - 0.5) * 0.6)
            prediction = make_prediction(
                version=version,
                scores={"positive": sure, "negative": 1 - sure},
                created_at=middle + timedelta(hours=hours * numbers.uniform(0.001, 1)),
            )
            made[version].append(prediction)
            truth[prediction.id] = "positive" if right else "negative"
    await PredictionWriter(engine).write(made["v1"] + made["v2"])
    # Labels cover all confidences, so half of the reference is of the harder kind.
    easy = [p for p in made["v1"] if p.created_at < middle]
    hard = [
        make_prediction(
            scores={"positive": sure, "negative": 1 - sure},
            created_at=middle - timedelta(minutes=numbers.uniform(1, 50)),
        )
        for sure in (numbers.uniform(0.5, 0.8) for _ in range(500))
    ]
    await PredictionWriter(engine).write(hard)
    for p in hard:
        right = numbers.random() < p.confidence
        truth[p.id] = "positive" if right else "negative"
    await give_at_once(engine, [(p.id, truth[p.id]) for p in [*easy[:400], *hard]])

    window = TimeRange(middle, middle + timedelta(hours=1))
    before = TimeRange(middle - timedelta(hours=1), middle)
    result = (await drift(Reader(engine), Scope(window), before)).estimated_accuracy
    assert set(result) == {"v1"}
    there = [p for p in made["v1"] if p.created_at >= middle]
    actual = sum(truth[p.id] == "positive" for p in there) / len(there)
    assert result["v1"].count == len(there)
    assert result["v1"].labelled_count == 900
    assert result["v1"].accuracy == pytest.approx(actual, abs=0.04)
    assert result["v1"].low < actual < result["v1"].high
    assert result["v1"].supported > 0.95
