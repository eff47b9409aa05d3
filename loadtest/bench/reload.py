"""Measures a reload under traffic: memory, time, and the latency of clients."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from functools import partial
from statistics import median
from typing import Annotated, Any

import httpx
import psutil
import typer
import uvloop

from core.command_output import JsonOption
from core.settings import get_settings
from core.types import VERSIONS
from loadtest.bench.processes import of_each_role, resident_mib, sampled
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import our_service, site
from loadtest.generator import send_load
from loadtest.report import LoadReport, percentile_ms
from loadtest.table import console, make_table
from loadtest.traffic import Kind, make_traffic
from runners.model_store import find_model

CLIENTS = 4
QUIET_SECONDS = 15.0
SAMPLE_SECONDS = 0.05
POLL_SECONDS = 0.02
_WHEN = ("quiet", "reloading")


def main(
    reloads: Annotated[int, typer.Option(help="reloads of v2, to the weights of v1 and back")] = 10,
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Reload v2 under traffic and measure memory, time and latency."""
    tags = [find_model(get_settings().model_tag(version)).tag for version in VERSIONS]
    with site() as where, our_service(where) as server:
        server.wait_until_ready()
        [runner] = [
            process for role, process, _ in of_each_role(server.pid, resident_mib) if role == "v2"
        ]
        figures = uvloop.run(_measure(server.url, runner, tags, reloads))
    memory, seconds = figures["memory_mib"], figures["reload_seconds"]
    rows = [
        ("runner, MiB", memory["before"], memory["most"], memory["after"]),
        *(
            (f"a request, {share}, ms", *(figures[when][f"{share}_ms"] for when in _WHEN), None)
            for share in ("p50", "p99")
        ),
    ]
    title = f"{reloads} reloads of v2 under traffic"
    console.print(make_table(title, ("", "before", "while", "after"), rows))
    console.print(
        f"a reload takes {median(seconds):.1f} s, at most {max(seconds):.1f} s; "
        f"failed requests: {dict(figures['failures']) or 'none'}"
    )
    write_figures(record, figures)


async def _measure(
    url: str, runner: psutil.Process, tags: list[str], reloads: int
) -> dict[str, Any]:
    quiet = await _load(url, QUIET_SECONDS, seed=1)
    before = resident_mib(runner)
    done = asyncio.Event()

    async def load() -> list[LoadReport]:
        seeds = itertools.count(2)
        reports = []
        while not done.is_set():
            reports.append(await _load(url, QUIET_SECONDS / 3, seed=next(seeds)))
        return reports

    loading = asyncio.create_task(load())
    async with (
        sampled(partial(resident_mib, runner), SAMPLE_SECONDS) as memory,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
    ):
        seconds = [await _reload(client, tags[number % len(tags)]) for number in range(reloads)]
        done.set()
        reports = await loading
    latencies = [seconds for report in reports for seconds in report.latencies_seconds]
    return {
        "memory_mib": {"before": before, "most": max(memory), "after": memory[-1]},
        "quiet": _percentiles(quiet.latencies_seconds),
        "reloading": _percentiles(latencies),
        "reload_seconds": seconds,
        "failures": sum((report.failures for report in (quiet, *reports)), Counter[str]()),
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


def _percentiles(latencies: list[float]) -> dict[str, float | None]:
    return {f"p{percent}_ms": percentile_ms(latencies, percent) for percent in (50, 99)}
