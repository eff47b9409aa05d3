"""Measures a reload under traffic: memory, time, and the latency of clients."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from core.settings import get_settings
from loadtest.bench.record import write_figures
from loadtest.bench.servers import our_service, site
from loadtest.generator import send_load
from loadtest.report import LoadReport
from loadtest.traffic import Kind, make_traffic
from runners.model_store import find_model

CLIENTS = 4
QUIET_SECONDS = 15.0
SAMPLE_SECONDS = 0.05
POLL_SECONDS = 0.02
RUNNER = "sentiment_runner_v2"
console = Console(highlight=False)


def main(
    reloads: Annotated[int, typer.Option(help="reloads of v2, to the weights of v1 and back")] = 10,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Reload v2 under traffic and measure memory, time and latency."""
    settings = get_settings()
    tags = [find_model(settings.model_tag(version)).tag for version in ("v1", "v2")]
    with site() as where, our_service(where) as server:
        server.wait_until_ready()
        runner = _runner(server.process.pid)
        figures = uvloop.run(_measure(server.url, runner, tags, reloads))
    table = Table(title=f"{reloads} reloads of v2 under traffic", title_justify="left")
    for column in ("", "before", "while", "after"):
        table.add_column(column, justify="left" if not column else "right")
    memory = figures["memory_mib"]
    table.add_row("runner, MiB", *(f"{memory[when]:,.0f}" for when in ("before", "most", "after")))
    for share in ("p50_ms", "p99_ms"):
        row = (figures[when][share] for when in ("quiet", "reloading"))
        table.add_row(
            f"a request, {share[:3]}", *(f"{milliseconds:.1f} ms" for milliseconds in row), ""
        )
    console.print(table)
    seconds = figures["reload_seconds"]
    console.print(
        f"a reload takes {median(seconds):.1f} s, at most {max(seconds):.1f} s; "
        f"failed requests: {figures['failures'] or 'none'}"
    )
    if record is not None:
        write_figures(record, figures)


def _runner(pid: int) -> psutil.Process:
    [found] = [
        process
        for process in psutil.Process(pid).children(recursive=True)
        if RUNNER in " ".join(process.cmdline())
    ]
    return found


async def _measure(
    url: str, runner: psutil.Process, tags: list[str], reloads: int
) -> dict[str, Any]:
    quiet = await _load(url, QUIET_SECONDS, seed=1)
    before = _mib(runner)
    most = before
    done = asyncio.Event()

    async def sample() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(_mib, runner))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def load() -> list[LoadReport]:
        reports = []
        for seed in itertools.count(2):
            reports.append(await _load(url, QUIET_SECONDS / 3, seed=seed))
            if done.is_set():
                return reports
        raise AssertionError

    sampling, loading = asyncio.create_task(sample()), asyncio.create_task(load())
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        seconds = [await _reload(client, tags[number % len(tags)]) for number in range(reloads)]
    done.set()
    reports = await loading
    sampling.cancel()
    with suppress(asyncio.CancelledError):
        await sampling
    latencies = [seconds for report in reports for seconds in report.latencies_seconds]
    failures: dict[str, int] = {}
    for report in (quiet, *reports):
        for kind, count in report.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    return {
        "memory_mib": {"before": before, "most": most, "after": _mib(runner)},
        "quiet": _percentiles(list(quiet.latencies_seconds)),
        "reloading": _percentiles(latencies),
        "reload_seconds": seconds,
        "failures": failures,
    }


async def _load(url: str, seconds: float, *, seed: int) -> LoadReport:
    traffic = make_traffic(Kind.mixed, seed=seed)
    return await send_load(url, traffic, clients=CLIENTS, seconds=seconds)


async def _reload(client: httpx.AsyncClient, tag: str) -> float:
    """Reload v2 from `tag`; return the seconds until the runner has loaded it."""
    started = time.perf_counter()
    request = {"version": "v2", "tag": tag, "reason": "a benchmark"}
    reply = await client.post("/admin/models/reload", json=request)
    policy = reply.raise_for_status().json()["policy_version"]
    while True:
        model = (await client.get("/health")).json()["versions"]["v2"]
        if model["observed_generation"] == policy:
            if model["load_error"]:
                raise RuntimeError(model["load_error"])
            return time.perf_counter() - started
        await asyncio.sleep(POLL_SECONDS)


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def _percentiles(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        f"p{percent}_ms": 1_000 * ordered[int(len(ordered) * percent / 100)] for percent in (50, 99)
    }
