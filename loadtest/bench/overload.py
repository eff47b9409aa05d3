"""Measures the service at loads far beyond its capacity."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.bench.record import write_figures
from loadtest.bench.servers import Server, our_service, site
from loadtest.generator import send_load
from loadtest.open_loop import OpenLoop, Outcome
from loadtest.traffic import BATCH, Kind, Request, make_traffic

WARM_UP_SECONDS = 3.0
REVIEW_WORDS = 200
REVIEWS = 100
console = Console(highlight=False, width=120)


def main(
    factor: Annotated[float, typer.Option(help="of capacity")] = 10.0,
    seconds: Annotated[float, typer.Option(help="of each phase")] = 15.0,
    workers: Annotated[int, typer.Option(help="API processes")] = 1,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Find the capacity for new texts, ask for many times as much, and look at who gets what."""
    with site() as where, our_service(where, API_WORKERS=str(workers)) as server:
        server.wait_until_ready()
        figures = uvloop.run(_measure(server, factor, seconds))
    if record is not None:
        write_figures(record, {"figures": figures})


async def _measure(server: Server, factor: float, seconds: float) -> dict[str, Any]:
    seeds = itertools.count()

    def texts() -> Iterator[Request]:
        return make_traffic(Kind.distinct, seed=next(seeds)).requests

    load = OpenLoop(server.url)
    table = Table(title="New texts, open loop", title_justify="left")
    for column in (
        "",
        "asked/s",
        "answered/s",
        "p50 ms",
        "p99 ms",
        "refused p99 ms",
        "MiB",
        "cores",
    ):
        table.add_column(column, justify="left" if column in ("", "cores") else "right")
    figures: dict[str, Any] = {}

    async def phase(name: str, rate: float, for_seconds: float) -> dict[str, Any]:
        planned = load.plan(texts(), rate=rate, seconds=for_seconds)
        before, started = _cpu_seconds(server), time.perf_counter()
        async with _memory(server) as mebibytes:
            outcomes = await load.send(planned)
        elapsed = time.perf_counter() - started
        phase_figures = figures[name] = _figures(outcomes, rate, for_seconds) | {
            "resident_mib": round(max(mebibytes)),
            "cores": {
                kind: round((seconds - before.get(kind, 0.0)) / elapsed, 2)
                for kind, seconds in _cpu_seconds(server).items()
            },
        }
        table.add_row(
            name,
            *(
                f"{value:,.0f}" if value is not None else ""
                for value in map(phase_figures.get, _SHOWN)
            ),
            " ".join(
                f"{kind} {cores}" for kind, cores in phase_figures["cores"].items() if cores >= 0.1
            ),
        )
        figures[name]["by_second"] = _by_second(outcomes)
        return phase_figures

    with console.status("warming up, finding the capacity"):
        await phase("warm-up", 20, WARM_UP_SECONDS)
        closed = await send_load(
            server.url,
            make_traffic(Kind.distinct, seed=next(seeds)),
            clients=64,
            seconds=seconds,
            warm_up_seconds=WARM_UP_SECONDS,
        )
    capacity = figures["capacity_per_second"] = closed.requests_per_second
    figures["closed loop, 64 clients"] = closed.figures()
    for times in (0.5, 1.0, 1.5, 2.0, factor):
        with console.status(f"{times:g} times the capacity of {capacity:.0f}/s"):
            await phase(f"{times:g}x", times * capacity, seconds)
    with console.status("afterwards"):
        await phase("afterwards, 0.5x", 0.5 * capacity, seconds)
    load_cores = {name: figures[name]["cores"]["load"] for name in ("1.5x", f"{factor:g}x")}
    with_load = f"1.5x, beside what makes {factor:g}x"
    with console.status(with_load), _taking(load_cores[f"{factor:g}x"] - load_cores["1.5x"]):
        await phase(with_load, 1.5 * capacity, seconds)
    console.print(table)
    usual = figures["0.5x"]["p99_ms"]
    after = figures["afterwards, 0.5x"]["by_second"]
    figures["seconds_to_normal"] = max(
        (
            second + 1
            for second, figures_of_second in enumerate(after)
            if figures_of_second["refused"] or (figures_of_second["p99_ms"] or 0) > 3 * usual
        ),
        default=0,
    )
    peak = max(
        capacity, *(figures[f"{times:g}x"]["answered_per_second"] for times in (0.5, 1, 1.5, 2))
    )
    goodput = figures[f"{factor:g}x"]["answered_per_second"]
    figures["goodput_of_peak"] = goodput / peak
    figures["goodput_of_what_the_load_leaves"] = goodput / figures[with_load]["answered_per_second"]
    console.print(
        f"closed loop, 64 clients: {closed}\n"
        f"at {factor:g}x: {figures['goodput_of_peak']:.0%} of the peak, "
        f"{figures['goodput_of_what_the_load_leaves']:.0%} of what the service does with the cores "
        f"that making {factor:g}x leaves; back to normal after {figures['seconds_to_normal']} s"
    )
    with console.status("small requests beside large ones"):
        figures["beside_large"] = await _beside_large(server, load, texts(), seconds)
    console.print(figures["beside_large"])
    load.close()
    return figures


_SHOWN = (
    "asked_per_second", "answered_per_second", "p50_ms", "p99_ms", "refused_p99_ms", "resident_mib",
)  # fmt: skip


async def _beside_large(
    server: Server, load: OpenLoop, texts: Iterator[Request], seconds: float
) -> dict[str, Any]:
    """Single texts alone, and while eight clients send 100 reviews at a time."""
    rate = 10.0
    planned = load.plan(texts, rate=rate, seconds=seconds)
    alone = _figures(await load.send(planned), rate, seconds)
    planned = load.plan(texts, rate=rate, seconds=seconds / 2)
    traffic = make_traffic(Kind.distinct, seed=-1, words=REVIEW_WORDS, batch_texts=REVIEWS)
    large = asyncio.create_task(
        send_load(
            server.url, traffic, clients=8, seconds=seconds, think=(0.5, 1.5), answer_seconds=60
        )
    )
    await asyncio.sleep(seconds / 5)
    small = _figures(await load.send(planned), rate, seconds / 2)
    report = await large
    keys = ("p50_ms", "p99_ms", "statuses")
    return {
        "small_alone": {key: alone[key] for key in keys},
        "small_beside": {key: small[key] for key in keys},
        f"large_{BATCH}": report.figures(),
    }


def _figures(outcomes: Sequence[Outcome], rate: float, seconds: float) -> dict[str, Any]:
    answered = [outcome.latency_seconds for outcome in outcomes if outcome.ok]
    refused = [outcome.latency_seconds for outcome in outcomes if outcome.status in (429, 503)]
    statuses = Counter(outcome.status for outcome in outcomes)
    return {
        "asked_per_second": round(rate, 1),
        "answered_per_second": round(len(answered) / seconds, 1),
        "p50_ms": _percentile_ms(answered, 0.5),
        "p99_ms": _percentile_ms(answered, 0.99),
        "refused_p50_ms": _percentile_ms(refused, 0.5),
        "refused_p99_ms": _percentile_ms(refused, 0.99),
        "statuses": {str(status): count for status, count in statuses.items()},
    }


def _by_second(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    start = min(outcome.due for outcome in outcomes)
    seconds: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        seconds.setdefault(int(outcome.due - start), []).append(outcome)
    return [
        {
            "answered": sum(outcome.ok for outcome in of_second),
            "refused": sum(not outcome.ok for outcome in of_second),
            "refused_p99_ms": _percentile_ms(
                [outcome.latency_seconds for outcome in of_second if not outcome.ok], 0.99
            ),
            "p99_ms": _percentile_ms(
                [outcome.latency_seconds for outcome in of_second if outcome.ok], 0.99
            ),
        }
        for _, of_second in sorted(seconds.items())
    ]


def _percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    if not seconds:
        return None
    return round(1_000 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))], 1)


# What a process of the service is, by what is in its command line.
_KINDS = {
    "--service-name sentiment ": "API",
    "sentiment_runner_v1": "v1",
    "sentiment_runner_v2": "v2",
    "analytics.log": "shipper",
}


def _cpu_seconds(server: Server) -> dict[str, float]:
    """CPU time so far, by kind of process; this one makes the load."""
    seconds = {"load": sum(psutil.Process().cpu_times()[:2])}
    for process in psutil.Process(server.process.pid).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            kind = next((kind for part, kind in _KINDS.items() if part in command), "other")
            seconds[kind] = seconds.get(kind, 0.0) + sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return seconds


@contextmanager
def _taking(cores: float) -> Iterator[None]:
    """A process that computes so much of the time, in pieces as short as those of a load."""
    process = multiprocessing.get_context("spawn").Process(target=_take, args=(cores,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _take(cores: float) -> None:
    started = time.perf_counter()
    already = time.process_time()
    while True:
        if time.process_time() - already > cores * (time.perf_counter() - started):
            time.sleep(0.0005)


@asynccontextmanager
async def _memory(server: Server) -> AsyncIterator[list[float]]:
    """Resident MiB of the service's processes, sampled while the block lasts."""
    samples: list[float] = []

    def sample() -> None:
        root = psutil.Process(server.process.pid)
        total = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples.append(total / 2**20)

    async def keep_sampling() -> None:
        while True:
            sample()
            await asyncio.sleep(0.5)

    sampling = asyncio.create_task(keep_sampling())
    try:
        yield samples
    finally:
        sampling.cancel()
        sample()
