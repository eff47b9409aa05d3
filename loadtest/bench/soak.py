"""Soaks a served Bento: memory, files, connections and threads must not grow."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import psutil
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.bench.servers import our_service, site
from loadtest.generator import MAX_SECONDS, send_load
from loadtest.report import LoadReport
from loadtest.traffic import Kind, make_traffic

SAMPLE_SECONDS = 2.0
# Well below what two cores can do: nothing is to be refused.
CLIENTS = 4
READING = ("/analytics/summary", "/analytics/latency", "/analytics/drift", "/health", "/metrics")
WRONG: tuple[tuple[str, bytes], ...] = (
    ("/predict", b"{"),
    ("/predict", b'{"text": ""}'),
    ("/predict/batch", b'{"texts": []}'),
    ("/no/such/path", b"{}"),
)
# Allowed growth from the second quarter of the time to the last.
MAX_GROWTH = {"memory, MiB": 0.05, "open files": 0.0, "connections": 0.0, "threads": 0.0}
# Allowed besides, because connection pools grow and shrink.
SLACK = {"memory, MiB": 16.0, "open files": 12.0, "connections": 12.0, "threads": 4.0}
console = Console(highlight=False)


class WrongAnswer(RuntimeError):
    """An invalid request did not get a 4xx."""


# The figures of one moment, by name.
Sample = Mapping[str, float]


def main(
    minutes: Annotated[float, typer.Option(help="minutes of traffic")] = 30.0,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Exit with 1 if a request failed, or memory, files, connections or threads grew."""
    with site() as where, our_service(where, API_WORKERS="2") as server:
        server.wait_until_ready()
        samples, reports = uvloop.run(soak(server.url, server.process.pid, minutes * 60))
    failures = sum((Counter(report.failures) for report in reports), Counter[str]())
    grown = growth(samples)
    table = Table(title=f"{minutes:g} minutes", title_justify="left")
    for column in ("", "second quarter", "last quarter"):
        table.add_column(column, justify="left" if not column else "right")
    for name, (before, after) in grown.items():
        table.add_row(name, f"{before:,.0f}", f"{after:,.0f}")
    console.print(table)
    answers = sum(len(report.latencies_seconds) for report in reports)
    console.print(f"{answers:,} answers, failures: {dict(failures) or 'none'}")
    if record is not None:
        figures = {"minutes": minutes, "answers": answers, "failures": failures, "growth": grown}
        record.write_text(json.dumps(figures, indent=1) + "\n")
    raise typer.Exit(1 if failures or too_much(grown) else 0)


async def soak(url: str, pid: int, seconds: float) -> tuple[list[Sample], list[LoadReport]]:
    """Send mixed traffic, analytics queries, invalid requests and clients that leave.

    `pid` is the process of `bentoml serve`.
    """
    samples: list[Sample] = []
    reports: list[LoadReport] = []
    with Progress(console=console) as progress:
        task = progress.add_task("soaking", total=seconds)

        async def sample() -> None:
            while True:
                samples.append(await asyncio.to_thread(take_sample, pid))
                progress.advance(task, SAMPLE_SECONDS)
                await asyncio.sleep(SAMPLE_SECONDS)

        others = [asyncio.create_task(task) for task in (sample(), _send_queries_and_mistakes(url))]
        end = time.monotonic() + seconds
        for seed in itertools.count():
            left = end - time.monotonic()
            if left <= 0:
                break
            # Each part makes new connections.
            traffic = make_traffic(Kind.mixed, seed=seed)
            part = min(left, MAX_SECONDS, 60.0)
            reports.append(await send_load(url, traffic, clients=CLIENTS, seconds=part))
        for other in others:
            if other.done():
                other.result()  # raises: they go on until they are cancelled
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    return samples, reports


async def _send_queries_and_mistakes(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for number in itertools.count():
            await client.get(READING[number % len(READING)])
            path, body = WRONG[number % len(WRONG)]
            reply = await client.post(
                path, content=body, headers={"Content-Type": "application/json"}
            )
            if not 400 <= reply.status_code < 500:
                raise WrongAnswer(f"{path} with {body!r} got {reply.status_code}")
            with suppress(httpx.TimeoutException):
                text = f"Nobody waits for this. {number}"
                await client.post("/predict", json={"text": text}, timeout=0.005)
            await asyncio.sleep(0.2)


def take_sample(pid: int) -> Sample:
    """Memory, files, connections and threads of `bentoml serve` and its children."""
    sums = defaultdict[str, float](float)
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        try:
            mib = process.memory_info().rss / 2**20
            figures = {
                "memory, MiB": mib,
                "open files": process.num_fds(),
                "connections": len(process.net_connections()),
                "threads": process.num_threads(),
                f"memory of {_role(process)}, MiB": mib,
            }
        except psutil.NoSuchProcess:
            continue
        for name, value in figures.items():
            sums[name] += value
    return sums


def _role(process: psutil.Process) -> str:
    """The service name, such as sentiment_runner_v1, or else the module."""
    command: list[str] = process.cmdline()
    flag = "--service-name"
    return command[command.index(flag) + 1] if flag in command else command[2]


def growth(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """The median of each figure in the second and in the last quarter."""

    def quarter(name: str, number: int) -> float:
        part = samples[len(samples) * (number - 1) // 4 : len(samples) * number // 4]
        return median(sample.get(name, 0.0) for sample in part)

    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: (quarter(name, 2), quarter(name, 4)) for name in names}


def too_much(grown: dict[str, tuple[float, float]]) -> list[str]:
    """The figures that grew by more than is allowed."""
    return [
        name
        for name, (before, after) in grown.items()
        if name in MAX_GROWTH and after > before * (1 + MAX_GROWTH[name]) + SLACK[name]
    ]
