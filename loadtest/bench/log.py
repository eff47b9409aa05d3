"""Measures the prediction log: its cost for a request, and how fast it catches up."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from sqlalchemy import URL

from analytics.log.open_segment import Durability
from analytics.log.prediction_log import PredictionLog
from analytics.log.records import Entry, encode, to_record
from analytics.log.seal import SpoolSeal
from analytics.log.segments import segments
from analytics.log.spool import Spool
from core.command_output import JsonOption
from core.paths import ROOT
from core.types import Prediction
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.seed_predictions import made_up
from loadtest.report import percentile_ms
from loadtest.table import console, make_table
from migrations.upgrade import upgrade
from serving.embedded.postgres import embedded_postgres

SPOOL_BYTES = 4 << 30
LINES_AT_A_TIME = 1_000
CATCHING_UP = "while catching up"
# The log's share of one request.
Cost = dict[str, float]


def main(
    rate: Annotated[int, typer.Option(help="requests a second, evenly spaced")] = 500,
    seconds: Annotated[float, typer.Option(help="seconds of each measurement")] = 10.0,
    backlog: Annotated[int, typer.Option(help="predictions in the backlog")] = 200_000,
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Record predictions at a steady rate, alone and while a backlog goes to PostgreSQL."""
    figures: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory(prefix="bench-log-") as folder:
        for durability in get_args(Durability):
            with console.status(f"recording, {durability}"):
                recorded = _record(Path(folder) / durability, durability, rate, seconds)
                figures[durability] = asyncio.run(recorded)
        with console.status(f"catching up with {backlog:,}"):
            figures[CATCHING_UP] = _catch_up(Path(folder) / "backlog", rate, backlog)
    stored_per_second = figures[CATCHING_UP]["stored_per_second"]
    keys = ("p50_ms", "p99_ms", "cpu_ms")
    rows = [(name, *(cost[key] for key in keys)) for name, cost in figures.items()]
    title = f"The log at {rate} requests a second"
    console.print(make_table(title, ("", "p50 ms", "p99 ms", "CPU ms"), rows))
    console.print(f"{stored_per_second:,.0f} predictions a second brought to PostgreSQL")
    write_figures(record, {"figures": figures})


def _predictions(count: int) -> list[Prediction]:
    """Of an outage that has just ended, at the usual rate."""
    now = datetime.now(UTC)
    times = [now - timedelta(seconds=number / 500) for number in range(count, 0, -1)]
    made, _, _ = made_up(times, count, np.random.default_rng(0), random.Random(0))
    return made


@asynccontextmanager
async def _open_spool(folder: Path, durability: Durability) -> AsyncIterator[Spool]:
    spool = Spool(folder, max_bytes=SPOOL_BYTES, durability=durability, when_full="refuse")
    spool.start()
    yield spool
    await spool.close()


async def _record(
    folder: Path, durability: Durability, rate: int, seconds: float, until_empty: bool = False
) -> Cost:
    """For `seconds`, or until all that is there when it begins has been shipped."""
    made = _predictions(2_000)
    backlog = set(segments(folder)) if until_empty else set()
    taken_seconds: list[float] = []
    number = 0

    async def record(log: PredictionLog, prediction: Prediction) -> None:
        started = time.perf_counter()
        await log.record([prediction])
        taken_seconds.append(time.perf_counter() - started)

    async with _open_spool(folder, durability) as spool:
        log = PredictionLog(spool, SpoolSeal(folder), text_storage="hash", when_full="refuse")
        started, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            while time.perf_counter() < started + seconds or backlog.intersection(segments(folder)):
                number += 1
                await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
                tasks.create_task(record(log, made[number % len(made)]))
        cpu_ms = 1_000 * (time.process_time() - cpu) / number
    percentiles = {f"p{percent}_ms": percentile_ms(taken_seconds, percent) for percent in (50, 99)}
    return {**percentiles, "cpu_ms": cpu_ms}


def _catch_up(data_folder: Path, rate: int, backlog: int) -> Cost:
    """What requests cost meanwhile, and the predictions stored a second."""
    spool = data_folder / "spool"
    asyncio.run(_spool(spool, _predictions(backlog)))
    with embedded_postgres(data_folder / "postgres") as url:
        upgrade(url)
        started = time.perf_counter()
        with _shipper(data_folder, url):
            cost = asyncio.run(_record(spool, "fsync", rate, 0.0, until_empty=True))
            return cost | {"stored_per_second": backlog / (time.perf_counter() - started)}


async def _spool(folder: Path, predictions: list[Prediction]) -> None:
    lines = [encode(Entry((to_record(each, "hash"),))) for each in predictions]
    async with _open_spool(folder, "page_cache") as spool:
        for start in range(0, len(lines), LINES_AT_A_TIME):
            await spool.append(b"".join(lines[start : start + LINES_AT_A_TIME]))


@contextmanager
def _shipper(data_folder: Path, url: URL) -> Iterator[None]:
    """The process that an API process starts."""
    environment = os.environ | {
        "DATA_FOLDER": str(data_folder),
        "DATABASE_URL": url.render_as_string(hide_password=False),
    }
    command = [sys.executable, "-m", "analytics.log"]
    # It ends with its standard input, which is closed here.
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE):
        yield
