"""Measures the prediction log: its cost for a request, and how fast it catches up."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from analytics.log.prediction_log import PredictionLog
from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import segments
from analytics.log.spool import Durability, Spool
from core.paths import ROOT
from core.types import Prediction
from loadtest.bench.record import write_figures
from loadtest.bench.seed_predictions import made_up
from migrations.upgrade import upgrade
from serving.embedded.databases import embedded_postgres

SPOOL_BYTES = 4 << 30
LINES_AT_A_TIME = 1_000
console = Console(highlight=False)


class Cost(NamedTuple):
    """The log's share of one request."""

    p50_ms: float
    p99_ms: float
    cpu_ms: float


def main(
    rate: Annotated[int, typer.Option(help="requests a second, evenly spaced")] = 500,
    seconds: Annotated[float, typer.Option(help="seconds of each measurement")] = 10.0,
    backlog: Annotated[int, typer.Option(help="predictions in the backlog")] = 200_000,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Record predictions at a steady rate, alone and while a backlog goes to PostgreSQL."""
    figures: dict[str, object] = {}
    table = Table(title=f"The log at {rate} requests a second", title_justify="left")
    for column in ("", "p50 ms", "p99 ms", "CPU ms"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory(prefix="bench-log-") as folder:
        for durability in get_args(Durability):
            with console.status(f"recording, {durability}"):
                cost = asyncio.run(_record(Path(folder) / durability, durability, rate, seconds))
            figures[durability] = cost._asdict()
            table.add_row(durability, *(f"{value:.2f}" for value in cost))
        with console.status(f"catching up with {backlog:,}"):
            cost, stored_per_second = _catch_up(Path(folder) / "backlog", rate, backlog)
        figures["while catching up"] = cost._asdict() | {"stored_per_second": stored_per_second}
        table.add_row("fsync, while catching up", *(f"{value:.2f}" for value in cost))
    console.print(table)
    console.print(f"{stored_per_second:,.0f} predictions a second brought to PostgreSQL")
    if record is not None:
        write_figures(record, {"figures": figures})


def _predictions(count: int) -> list[Prediction]:
    """Of an outage that has just ended, at the usual rate."""
    now = datetime.now(UTC)
    times = [now - timedelta(seconds=number / 500) for number in range(count, 0, -1)]
    made, _, _ = made_up(times, count, np.random.default_rng(0), random.Random(0))
    return made


async def _record(
    folder: Path, durability: Durability, rate: int, seconds: float, until_empty: bool = False
) -> Cost:
    """For `seconds`, or until all that is there when it begins has been shipped."""
    spool = Spool(folder, max_bytes=SPOOL_BYTES, durability=durability, when_full="refuse")
    spool.start()
    log = PredictionLog(spool, text_storage="hash", when_full="refuse")
    made = _predictions(2_000)
    backlog = set(segments(folder)) if until_empty else set()
    taken_ms: list[float] = []

    async def record(prediction: Prediction) -> None:
        started = time.perf_counter()
        await log.record([prediction])
        taken_ms.append(1_000 * (time.perf_counter() - started))

    tasks = set()
    started, cpu = time.perf_counter(), time.process_time()
    number = 0
    while time.perf_counter() < started + seconds or backlog.intersection(segments(folder)):
        number += 1
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.add(asyncio.create_task(record(made[number % len(made)])))
    await asyncio.gather(*tasks)
    cpu = time.process_time() - cpu
    await spool.close()
    percentiles = statistics.quantiles(taken_ms, n=100)
    return Cost(percentiles[49], percentiles[98], 1_000 * cpu / number)


def _catch_up(data_folder: Path, rate: int, backlog: int) -> tuple[Cost, float]:
    """What requests cost meanwhile, and the predictions stored a second."""
    spool = data_folder / "spool"
    asyncio.run(_spool(spool, _predictions(backlog)))
    with embedded_postgres(data_folder / "postgres") as url:
        upgrade(url)
        started = time.perf_counter()
        with _shipper(data_folder, url):
            cost = asyncio.run(_record(spool, "fsync", rate, 0.0, until_empty=True))
            return cost, backlog / (time.perf_counter() - started)


async def _spool(folder: Path, predictions: list[Prediction]) -> None:
    spool = Spool(folder, max_bytes=SPOOL_BYTES, durability="page_cache", when_full="refuse")
    spool.start()
    lines = [encode(Entry((to_record(each, "hash"),))) for each in predictions]
    for start in range(0, len(lines), LINES_AT_A_TIME):
        await spool.append(b"".join(lines[start : start + LINES_AT_A_TIME]))
    await spool.close()


@contextmanager
def _shipper(data_folder: Path, url: URL) -> Iterator[None]:
    """The process that an API process starts."""
    environment = os.environ | {
        "DATA_FOLDER": str(data_folder),
        "DATABASE_URL": url.render_as_string(hide_password=False),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "analytics.log"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
    ) as process:
        yield
        process.communicate()  # closes its standard input, with which it ends
