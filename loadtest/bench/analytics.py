"""How long analytics take as the prediction log grows, and how fast it is written."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, track
from rich.table import Table
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

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
from core.gc import freeze_gc
from core.postgres import create_engine
from loadtest.bench.record import write_figures
from loadtest.bench.seed_predictions import seed_history
from migrations.upgrade import upgrade
from serving.embedded.databases import embedded_postgres

DAYS = 30
REPEATS = 40
DENSE = "rows/s written, rollups on, 20,000 predictions a second"
SPARSE = "rows/s written, rollups on, all over a month"
DENSE_PREDICTIONS, DENSE_SPAN = 400_000, timedelta(seconds=20)
Question = Callable[[], Awaitable[object]]
console = Console(highlight=False)


def main(
    sizes: Annotated[list[int], typer.Argument(help="how many predictions, ascending")],
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Seed a private PostgreSQL with each number of predictions and time every question.

    Each question is one of an endpoint, about the last day or month. The writer is that of the
    service, in its batches; making the predictions up is not counted.
    """
    freeze_gc()  # as the service does
    with _database() as url:
        dense = asyncio.run(_write_dense(url))
    console.print(f"{dense:,.0f} {DENSE}")
    results = []
    for size in sizes:
        # A database of its own for each size: what was vacuumed or cached before does not matter.
        with _database() as url:
            results.append(asyncio.run(_measure(url, size)))
    console.print(_table(sizes, results))
    if record is not None:
        figures = {str(size): result for size, result in zip(sizes, results, strict=True)}
        write_figures(record, {DENSE: dense, "figures": figures})


@contextmanager
def _database() -> Iterator[URL]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-analytics-") as folder,
        embedded_postgres(Path(folder) / "data") as url,
    ):
        upgrade(url)
        yield url


async def _write_dense(url: URL) -> float:
    """The rows written a second when each minute has many."""
    engine = create_engine(url, pool_size=1, timeout_seconds=120)
    try:
        return await _write(engine, "busy traffic", DENSE_PREDICTIONS, DENSE_SPAN)
    finally:
        await engine.dispose()


async def _write(engine: AsyncEngine, name: str, predictions: int, span: timedelta) -> float:
    """The rows written a second; making them up is not counted."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"writing {name}", total=predictions)
        seconds = 0.0
        async for written in seed_history(engine, predictions, span, seed=0):
            progress.advance(task, written.predictions)
            seconds += written.seconds
    return predictions / seconds


async def _measure(url: URL, size: int) -> dict[str, float]:
    """p95 in ms of each question, and the rows written a second."""
    engine = create_engine(url, pool_size=5, timeout_seconds=120)
    try:
        measured = {
            SPARSE: await _write(engine, f"{size:,} predictions", size, timedelta(days=DAYS))
        }
        questions = _questions(Reader(engine))
        for name, question in track(
            questions.items(), "asking", console=console, transient=True, total=len(questions)
        ):
            measured[f"{name}, p95 ms"] = await _p95_ms(question)
    finally:
        await engine.dispose()
    return measured


def _questions(reader: Reader) -> dict[str, Question]:
    now = datetime.now(UTC)
    day, month = (TimeRange(now - timedelta(days=days), now) for days in (1, DAYS))
    return {
        **_about(reader, "a day", day),
        **_about(reader, "a month", month),
        "ab, from the beginning": partial(ab_test, reader, None, now),
    }


def _about(reader: Reader, name: str, span: TimeRange) -> dict[str, Question]:
    scope = Scope(span)
    half = TimeRange(span.since + (span.until - span.since) / 2, span.until)
    before = reference_range(None, None, half, span.until)
    bucket = choose_bucket(span, None)
    return {
        f"summary, {name}": partial(summary, reader, scope),
        f"sentiment-distribution, {name}": partial(sentiment_counts, reader, scope),
        f"recent, {name}": partial(recent, reader, Scope(span, "v2"), 100),
        f"timeseries, {name}": partial(timeseries, reader, scope, bucket),
        f"latency, {name}": partial(latency, reader, scope),
        f"confidence, {name}": partial(confidence, reader, scope),
        f"drift, {name}": partial(drift, reader, Scope(half), before),
    }


async def _p95_ms(question: Question) -> float:
    await question()
    milliseconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await question()
        milliseconds.append(1_000 * (time.perf_counter() - started))
    return statistics.quantiles(milliseconds, n=20)[-1]


def _table(sizes: Sequence[int], results: Sequence[dict[str, float]]) -> Table:
    table = Table(title="Analytics as the prediction log grows", title_justify="left")
    table.add_column("")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column("last / first", justify="right")
    for name in results[0]:
        values = [result[name] for result in results]
        table.add_row(
            name, *(f"{value:,.1f}" for value in values), f"{values[-1] / values[0]:.2f}x"
        )
    return table
