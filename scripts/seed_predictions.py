"""Fills the prediction log with a made-up but lifelike history, for trying analytics at size."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.database import create_engine
from analytics.log_writer import model_version_id, store
from ids import new_id
from settings import get_settings
from values import Version

CHUNK_PREDICTIONS = 20_000
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
    TextColumn("{task.fields[rate]:,.0f}/s"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)
# Of a day's traffic, the share of each hour in UTC: two peaks, and a quiet night.
_HOURLY = np.array([2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 7, 6, 7, 8, 8, 7, 6, 6, 7, 7, 5, 4, 3], float)
_ENDPOINTS = ("/predict", "/predict/batch", "/predict/ab")
_ENDPOINT_SHARES = (0.6, 0.3, 0.1)
_MODELS: dict[Version, tuple[str, str]] = {
    "v1": ("seed-v1", "onnxruntime-int8"),
    "v2": ("seed-v2", "onnxruntime-int8"),
}
_POSITIVE_SHARE: dict[Version, float] = {"v1": 0.62, "v2": 0.58}

Row = tuple[Any, ...]


def main(
    predictions: Annotated[int, typer.Argument(min=1, help="how many to make")],
    days: Annotated[float, typer.Option(min=0.01, help="over how many days, up to now")] = 30.0,
    seed: Annotated[int, typer.Option(help="another seed, another history")] = 0,
) -> None:
    """Write PREDICTIONS made-up predictions into the database of DATABASE_URL."""
    started = time.perf_counter()
    asyncio.run(_seed(predictions, timedelta(days=days), seed))
    seconds = time.perf_counter() - started
    print(f"{predictions:,} predictions in {seconds:.1f} s, {predictions / seconds:,.0f} a second")


async def _seed(predictions: int, span: timedelta, seed: int) -> None:
    settings = get_settings()
    engine = create_engine(settings.sqlalchemy_url(), pool_size=1, timeout_seconds=60)
    try:
        with Progress(*_COLUMNS) as progress:
            task = progress.add_task("seeding", total=predictions, rate=0.0)
            started, done = time.perf_counter(), 0
            async for count in seed_history(engine, predictions, span, seed):
                done += count
                rate = done / (time.perf_counter() - started)
                progress.update(task, advance=count, rate=rate)
    finally:
        await engine.dispose()


async def seed_history(engine: AsyncEngine, predictions: int, span: timedelta, seed: int) -> Any:
    """Write a history that ends now, oldest first; tells how many are written, chunk by chunk.

    Interrupted, it leaves what is written: every chunk is a transaction with its rollups.
    """
    async with engine.begin() as connection:
        models = {
            version: await model_version_id(connection, (version, *model))
            for version, model in _MODELS.items()
        }
    for rows in _chunks(predictions, span, seed, models):
        async with engine.begin() as connection:
            await store(connection, rows)
        yield len(rows)


def _chunks(
    predictions: int, span: timedelta, seed: int, models: dict[Version, int]
) -> Iterator[list[Row]]:
    numbers = np.random.default_rng(seed)
    times = np.sort(_times(predictions, span, numbers))
    for start in range(0, predictions, CHUNK_PREDICTIONS):
        yield _rows(times[start : start + CHUNK_PREDICTIONS], numbers, models)


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


def _rows(
    times: np.ndarray[Any, np.dtype[np.float64]],
    numbers: np.random.Generator,
    models: dict[Version, int],
) -> list[Row]:
    count = len(times)
    versions: list[Version] = ["v1" if one else "v2" for one in numbers.random(count) < 0.55]
    share = np.array([_POSITIVE_SHARE[version] for version in versions])
    positive = numbers.random(count) < share
    confidence = 0.5 + numbers.beta(4, 1.3, count) / 2
    cached = numbers.random(count) < 0.35
    latency = np.where(
        cached, numbers.lognormal(-0.5, 0.4, count), numbers.lognormal(2.8, 0.6, count)
    )
    words = np.clip(numbers.lognormal(3.0, 0.8, count), 1, 800)
    endpoints = numbers.choice(len(_ENDPOINTS), size=count, p=_ENDPOINT_SHARES)
    draw = random.Random(int(numbers.integers(2**62)))
    return [
        (
            new_id(moment, draw.getrandbits),
            moment,
            models[versions[row]],
            _ENDPOINTS[endpoints[row]],
            "positive" if positive[row] else "negative",
            float(confidence[row]),
            float(1 - confidence[row] if positive[row] else confidence[row]),
            None,
            float(confidence[row] if positive[row] else 1 - confidence[row]),
            float(latency[row]),
            bool(cached[row]),
            bool(words[row] > 380),
            min(512, int(words[row] * 1.3) + 2),
            min(5_000, int(words[row] * 5.5) + 1),
            hashlib.sha256(draw.randbytes(8)).digest(),
            None,
        )
        for row, moment in enumerate(datetime.fromtimestamp(at, UTC) for at in times.tolist())
    ]


if __name__ == "__main__":
    typer.run(main)
