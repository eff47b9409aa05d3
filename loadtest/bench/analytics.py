"""How long analytics take as the prediction log grows, and how fast it is written."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from sqlalchemy import URL

from analytics.ab.report import ab_test
from analytics.confidence import confidence
from analytics.drift import drift
from analytics.latency import latency
from analytics.reader import Reader
from analytics.recent import recent
from analytics.scope import Scope
from analytics.summary import sentiment_counts, summary
from analytics.time_range import TimeRange, reference_range
from analytics.timeseries import choose_bucket, timeseries
from core.command_output import JsonOption
from core.gc import freeze_gc
from core.postgres import opened_engine
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.seed_predictions import write_history
from loadtest.report import percentile_ms
from loadtest.table import console, make_table
from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres

MONTH = timedelta(days=30)
REPEATS = 40
DENSE = "rows/s written, rollups on, 20,000 predictions a second"
SPARSE = "rows/s written, rollups on, all over a month"
DENSE_PREDICTIONS, DENSE_SPAN = 400_000, timedelta(seconds=20)
Question = Callable[[], Awaitable[object]]


def main(
    sizes: Annotated[list[int], typer.Argument(help="how many predictions, ascending")],
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Seed a private PostgreSQL with each number of predictions and time every question.

    Each question is one of an endpoint, about the last day or month. The writer is that of the
    service, in its batches; making the predictions up is not counted.
    """
    freeze_gc()  # as the service does
    # A database of its own for each size: what was vacuumed or cached before does not matter.
    with _database() as url:
        dense = asyncio.run(_rows_per_second(url, DENSE_PREDICTIONS, DENSE_SPAN))
    console.print(f"{dense:,.0f} {DENSE}")
    figures: dict[int, dict[str, float]] = {}
    for size in sizes:
        with _database() as url:
            figures[size] = {SPARSE: asyncio.run(_rows_per_second(url, size, MONTH))}
            figures[size] |= asyncio.run(_p95s_ms(url))
    rows = [
        (name, *(of[name] for of in figures.values()), figures[sizes[-1]][name] / first)
        for name, first in figures[sizes[0]].items()
    ]
    columns = ["", *(f"{size:,}" for size in sizes), "last / first"]
    console.print(make_table("Analytics as the prediction log grows", columns, rows))
    write_figures(record, {DENSE: dense, "figures": figures})


@contextmanager
def _database() -> Iterator[URL]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-analytics-") as folder,
        embedded_postgres(Path(folder) / "data") as url,
    ):
        upgrade(url)
        yield url


async def _rows_per_second(url: URL, predictions: int, span: timedelta) -> float:
    return predictions / await write_history(url, predictions, span, seed=0)


async def _p95s_ms(url: URL) -> dict[str, float]:
    async with opened_engine(url, pool_size=5, timeout_seconds=120) as engine:
        questions = _questions(Reader(engine)).items()
        asking = track(questions, "asking", console=console, transient=True)
        return {f"{name}, p95 ms": await _p95_ms(question) for name, question in asking}


def _questions(reader: Reader) -> dict[str, Question]:
    now = datetime.now(UTC)
    questions: dict[str, Question] = {}
    for name, length in {"a day": timedelta(days=1), "a month": MONTH}.items():
        span = TimeRange(now - length, now)
        half = TimeRange(now - length / 2, now)
        scope, before = Scope(span), reference_range(None, None, half, now)
        questions |= {
            f"summary, {name}": partial(summary, reader, scope),
            f"sentiment-distribution, {name}": partial(sentiment_counts, reader, scope),
            f"recent, {name}": partial(recent, reader, Scope(span, "v2"), 100),
            f"timeseries, {name}": partial(timeseries, reader, scope, choose_bucket(span, None)),
            f"latency, {name}": partial(latency, reader, scope),
            f"confidence, {name}": partial(confidence, reader, scope),
            f"drift, {name}": partial(drift, reader, Scope(half), before),
        }
    return questions | {"ab, from the beginning": partial(ab_test, reader, None, now)}


async def _p95_ms(question: Question) -> float:
    await question()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await question()
        seconds.append(time.perf_counter() - started)
    return float(percentile_ms(seconds, 95))
