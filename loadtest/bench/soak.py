"""Soaks a served Bento: memory, files, connections and threads must not grow."""

from __future__ import annotations

import asyncio
import itertools
import re
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
from rich.progress import Progress

from core.command_output import JsonOption
from loadtest.bench.processes import of_each_role, resident_mib, sampled
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import our_service, site
from loadtest.generator import send_load
from loadtest.report import LoadReport
from loadtest.table import console, make_table
from loadtest.traffic import Kind, make_traffic

SAMPLE_SECONDS = 2.0
# Each part makes new connections.
PART_SECONDS = 60.0
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
# The series that tell why a request failed.
REFUSED = re.compile(r'(shed|timed_out)_requests_total|http_requests_total.*status="5')
MAX_WARNINGS = 20


class WrongAnswer(RuntimeError):
    """An invalid request did not get a 4xx."""


# The figures of one moment, by name.
Sample = Mapping[str, float]


def main(
    minutes: Annotated[float, typer.Option(help="minutes of traffic")] = 30.0,
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Exit with 1 if a request failed, or memory, files, connections or threads grew."""
    with site() as where, our_service(where, API_WORKERS="2") as server:
        server.wait_until_ready()
        samples, reports = uvloop.run(soak(server.url, server.pid, minutes * 60))
        failures = sum((report.failures for report in reports), Counter[str]())
        # Its log and its counts end with it.
        for line in reasons(server.url, server.log) if failures else ():
            console.print(line, markup=False)
    answers = sum(len(report.latencies_seconds) for report in reports)
    grown = growth(samples)
    rows = [(name, round(before), round(after)) for name, (before, after) in grown.items()]
    console.print(make_table(f"{minutes:g} minutes", ("", "second quarter", "last quarter"), rows))
    console.print(f"{answers:,} answers, failures: {dict(failures) or 'none'}")
    write_figures(
        record, {"minutes": minutes, "answers": answers, "failures": failures, "growth": grown}
    )
    raise typer.Exit(1 if failures or too_much(grown) else 0)


def reasons(url: str, log: Path) -> list[str]:
    """What a service counts of the requests that it refused, and its last warnings."""
    counted = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text.splitlines()
    logged = log.read_text(errors="replace", encoding="utf-8").splitlines()
    warnings = [line for line in logged if '"level":"warning"' in line or '"level":"error"' in line]
    return [
        *(line for line in counted if REFUSED.match(line) and not line.endswith(" 0.0")),
        *warnings[-MAX_WARNINGS:],
    ]


async def soak(url: str, pid: int, seconds: float) -> tuple[list[Sample], list[LoadReport]]:
    """Send mixed traffic, analytics queries, invalid requests and clients that leave.

    `pid` is the process of `bentoml serve`.
    """
    reports: list[LoadReport] = []
    started = time.monotonic()
    with Progress(console=console) as progress:
        task = progress.add_task("soaking", total=seconds)

        def sample() -> Sample:
            progress.update(task, completed=time.monotonic() - started)
            return take_sample(pid)

        async with sampled(sample, SAMPLE_SECONDS) as samples:
            others = asyncio.create_task(_send_queries_and_mistakes(url))
            for seed in itertools.count():
                left = started + seconds - time.monotonic()
                if left <= 0:
                    break
                traffic = make_traffic(Kind.mixed, seed=seed)
                part = min(left, PART_SECONDS)
                reports.append(await send_load(url, traffic, clients=CLIENTS, seconds=part))
            if others.done():
                others.result()  # raises: they go on until they are cancelled
            others.cancel()
    return samples, reports


async def _send_queries_and_mistakes(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
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

    def figures(process: psutil.Process) -> Sample:
        return {
            "memory, MiB": resident_mib(process),
            "open files": process.num_fds(),
            "connections": len(process.net_connections()),
            "threads": process.num_threads(),
        }

    sums = defaultdict[str, float](float)
    for role, _, found in of_each_role(pid, figures):
        for name, value in found.items():
            sums[name] += value
        sums[f"memory of {role}, MiB"] += found["memory, MiB"]
    return sums


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
