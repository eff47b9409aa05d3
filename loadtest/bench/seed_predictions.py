"""Fills the prediction log with a made-up but lifelike history, for trying analytics at size."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import numpy as np
import typer
from rich.progress import Progress, TextColumn
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.feedback.store import store_labels
from analytics.log.records import ComparisonRecord, to_record
from analytics.log.shipper import MAX_BATCH_PREDICTIONS
from analytics.log.writer import LogWriter
from core.command_output import JsonOption, emit
from core.keyed_hash import subject_digest
from core.postgres import create_engine
from core.types import (
    ARM_GROUPS,
    VERSIONS,
    Assignment,
    Comparison,
    Endpoint,
    Experiment,
    ModelVersion,
    Prediction,
    Sentiment,
    Split,
    Version,
)
from core.uuid7 import new_id
from rollout.bucketing import arm_group, assign
from serving.command_settings import settings_for_databases

# Of a day's traffic, the share of each hour in UTC: two peaks, and a quiet night.
_HOURLY = np.array([2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 7, 6, 7, 8, 8, 7, 6, 6, 7, 7, 5, 4, 3], float)
# Of every hundred requests; one to ab-compare makes two predictions.
_ENDPOINTS: dict[Endpoint, int] = {
    "/predict": 58, "/predict/batch": 26, "/predict/ab": 12, "/predict/ab-compare": 4,
}  # fmt: skip
_CACHED_SHARE = 0.35
# Of the texts that both versions got, those that are as hard for one as for the other.
_SAME_DIFFICULTY_SHARE = 0.8
# Each subject comes back, and some texts are sent again.
_REQUESTS_A_SUBJECT = 8
_REQUESTS_A_TEXT = 1.5


class Written(NamedTuple):
    """One batch: how many predictions, and what the writer took for them."""

    predictions: int
    seconds: float


Label = tuple[UUID, Sentiment, datetime]


class Mood(NamedTuple):
    """The texts that clients send at a time."""

    positive_share: float = 0.6
    length_factor: float = 1.0


@dataclass(frozen=True)
class Story:
    """What a history is about; by default an even one, of models that nobody has."""

    models: Mapping[Version, ModelVersion] = field(
        default_factory=lambda: {
            version: ModelVersion(version, f"seed-{version}", "onnxruntime-int8")
            for version in VERSIONS
        }
    )
    split: Split = field(default_factory=lambda: Split("seed", 50.0))
    accuracy: Mapping[Version, float] = field(default_factory=lambda: {"v1": 0.86, "v2": 0.90})
    # The share of the predictions that somebody labels.
    labelled_share: Callable[[Endpoint], float] = lambda _endpoint: 0.01
    v2_share: Callable[[Endpoint, datetime], float] = lambda _endpoint, _time: 0.5
    mood: Callable[[datetime], Mood] = lambda _time: Mood()

    @property
    def experiment(self) -> Experiment:
        return Experiment(self.split, self.models["v1"], self.models["v2"])


_OTHER: dict[Sentiment, Sentiment] = {"negative": "positive", "positive": "negative"}


def main(
    predictions: Annotated[int, typer.Argument(min=1, help="how many to make")],
    days: Annotated[float, typer.Option(min=0.01, help="over how many days, up to now")] = 30.0,
    seed: Annotated[int, typer.Option(help="another seed, another history")] = 0,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write PREDICTIONS made-up predictions into the database of DATABASE_URL."""
    started = time.perf_counter()
    url = settings_for_databases().sqlalchemy_url()
    asyncio.run(write_history(url, predictions, timedelta(days=days), seed))
    seconds = time.perf_counter() - started
    done = f"{predictions:,} predictions in {seconds:.1f} s, {predictions / seconds:,.0f} a second"
    emit({"predictions": predictions, "seconds": seconds}, lambda: print(done))


async def write_history(
    url: URL, predictions: int, span: timedelta, seed: int, story: Story | None = None
) -> float:
    """Write a history that ends now, with a progress bar; the seconds that the writer took."""
    engine = create_engine(url, pool_size=1, timeout_seconds=120)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[rate]:,.0f}/s"))
    seconds, started, done = 0.0, time.perf_counter(), 0
    try:
        with Progress(*columns, transient=True) as progress:
            task = progress.add_task("writing", total=predictions, rate=0.0)
            async for written in seed_history(engine, predictions, span, seed, story):
                done, seconds = done + written.predictions, seconds + written.seconds
                rate = done / (time.perf_counter() - started)
                progress.update(task, completed=done, rate=rate)
    finally:
        await engine.dispose()
    return seconds


async def seed_history(
    engine: AsyncEngine,
    predictions: int,
    span: timedelta,
    seed: int,
    story: Story | None = None,
) -> AsyncIterator[Written]:
    """Write a history that ends now, oldest first; tells what is written, chunk by chunk.

    By the writer of the service, in batches of the same size. Interrupted, it leaves what is
    written: every batch is a transaction with its rollups.
    """
    writer = LogWriter(engine)
    numbers = np.random.default_rng(seed)
    draw = random.Random(seed)
    times = np.sort(_times(predictions, span, numbers))
    for start in range(0, predictions, MAX_BATCH_PREDICTIONS):
        chunk = times[start : start + MAX_BATCH_PREDICTIONS].tolist()
        moments = [datetime.fromtimestamp(at, UTC) for at in chunk]
        made, comparisons, labels = made_up(moments, predictions, numbers, draw, story)
        records = [to_record(each, "hash") for each in made]
        linked = [ComparisonRecord.of(each) for each in comparisons]
        started = time.perf_counter()
        await writer.write(records, linked)
        seconds = time.perf_counter() - started
        if labels:
            async with engine.begin() as connection:
                await store_labels(connection, labels)
        yield Written(len(made), seconds)


def _times(
    predictions: int, span: timedelta, numbers: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Unix seconds, dense where a day is busy."""
    until = datetime.now(UTC).timestamp()
    times = until - numbers.random(predictions) * span.total_seconds()
    # Moved within their day to the hours that are busy; the last day ends now.
    hours = numbers.choice(24, size=predictions, p=_HOURLY / _HOURLY.sum())
    moved = times - times % 86_400 + 3_600 * (hours + numbers.random(predictions))
    result: np.ndarray[Any, np.dtype[np.float64]] = np.where(moved < until, moved, times)
    return result


def _group(endpoint: Endpoint, text: int, assignment: Assignment | None) -> int | None:
    """The group of a text whose version the policy chose."""
    if assignment is not None:
        return arm_group(assignment.subject_key)
    return text % ARM_GROUPS if endpoint == "/predict" else None


def made_up(
    times: Sequence[datetime],
    total: int,
    numbers: np.random.Generator,
    draw: random.Random,
    story: Story | None = None,
) -> tuple[list[Prediction], list[Comparison], list[Label]]:
    """As many predictions as there are times, their comparisons, and some labels."""
    story = story or Story()
    experiment = story.experiment
    count = len(times)
    endpoints = draw.choices(list(_ENDPOINTS), list(_ENDPOINTS.values()), k=count)
    confidence = (0.5 + numbers.beta(4, 1.3, (count, 2)) / 2).tolist()
    mean_confidence = 0.5 + 4 / 5.3 / 2
    cached = (numbers.random(count) < _CACHED_SHARE).tolist()
    latency = np.where(
        cached, numbers.lognormal(-0.5, 0.4, count), numbers.lognormal(2.8, 0.6, count)
    ).tolist()
    moods = [story.mood(time) for time in times]
    factors = np.array([mood.length_factor for mood in moods])
    words = np.clip(factors * numbers.lognormal(3.0, 0.8, count), 1, 800).tolist()
    texts = numbers.integers(0, max(1, int(total / _REQUESTS_A_TEXT)), count).tolist()
    subjects = numbers.integers(0, max(1, total // _REQUESTS_A_SUBJECT), count).tolist()
    label_draws = numbers.random(count).tolist()
    made: list[Prediction] = []
    comparisons: list[Comparison] = []
    labels: list[Label] = []

    def predict(
        row: int,
        endpoint: Endpoint,
        version: Version,
        truth: Sentiment,
        difficulty: float,
        *,
        assignment: Assignment | None = None,
    ) -> Prediction:
        sure = confidence[row][version == "v2"]
        # A confidence that can be believed: the surer, the more often right.
        right = difficulty < min(0.99, story.accuracy[version] + sure - mean_confidence)
        sentiment = truth if right else _OTHER[truth]
        text = f"{texts[row]:<{int(words[row] * 5.5)}}"
        prediction = Prediction(
            id=new_id(times[row], draw.getrandbits),
            created_at=times[row],
            endpoint=endpoint,
            model=story.models[version],
            sentiment=sentiment,
            confidence=sure,
            scores={sentiment: sure, _OTHER[sentiment]: 1 - sure},
            latency_ms=latency[row],
            cache_hit=cached[row],
            truncated=words[row] > 380,
            token_count=min(512, int(words[row] * 1.3) + 2),
            text_characters=len(text),
            text=text,
            assignment=assignment,
            arm_group=_group(endpoint, texts[row], assignment),
        )
        made.append(prediction)
        return prediction

    while len(made) < count:
        row = len(made)
        endpoint = endpoints[row]
        positive = draw.random() < moods[row].positive_share
        truth: Sentiment = "positive" if positive else "negative"
        difficulty = draw.random()
        if endpoint == "/predict/ab-compare" and row + 1 < count:
            first = predict(row, endpoint, "v1", truth, difficulty)
            is_same = draw.random() < _SAME_DIFFICULTY_SHARE
            other_difficulty = difficulty if is_same else draw.random()
            other = predict(row, endpoint, "v2", truth, other_difficulty)
            comparison_id = new_id(times[row], draw.getrandbits)
            comparisons.append(Comparison(comparison_id, times[row], first, other))
        elif endpoint == "/predict/ab":
            key = subject_digest(str(subjects[row]), experiment.split.salt)
            version = assign(key, experiment.split.v2_percent)
            assignment = Assignment(experiment, key)
            first = predict(row, endpoint, version, truth, difficulty, assignment=assignment)
        else:
            plain: Endpoint = "/predict" if endpoint == "/predict/ab-compare" else endpoint
            is_v2 = draw.random() < story.v2_share(plain, times[row])
            first = predict(row, plain, "v2" if is_v2 else "v1", truth, difficulty)
        if label_draws[row] < story.labelled_share(first.endpoint):
            late = times[row] + timedelta(hours=draw.expovariate(0.2))
            labels.append((first.id, truth, min(late, datetime.now(UTC))))
    return made, comparisons, labels
