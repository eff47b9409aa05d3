"""Measures the service at loads far beyond its capacity."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import uvloop

from core.command_output import JsonOption
from loadtest.bench.own_process import safe_path
from loadtest.bench.processes import cpu_seconds, of_each_role, resident_mib, sampled
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import Server, our_service, site
from loadtest.generator import send_load
from loadtest.open_loop import OpenLoop, Outcome, Planned
from loadtest.report import percentile_ms
from loadtest.table import console, make_table
from loadtest.traffic import BATCH, Kind, Request, make_traffic

WARM_UP_SECONDS = 3.0
REVIEW_WORDS = 200
REVIEWS = 100
CLOSED = "closed loop, 64 clients"
SHOWN = {
    "asked_per_second": "asked/s",
    "answered_per_second": "answered/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "refused_p99_ms": "refused p99 ms",
    "resident_mib": "MiB",
}


def main(
    factor: Annotated[float, typer.Option(help="of capacity")] = 10.0,
    seconds: Annotated[float, typer.Option(help="of each phase")] = 15.0,
    workers: Annotated[int, typer.Option(help="API processes")] = 1,
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Find the capacity for new texts, ask for many times as much, and look at who gets what."""
    with site() as where, our_service(where, API_WORKERS=str(workers)) as server:
        server.wait_until_ready()
        figures = uvloop.run(_measure(server, factor, seconds))
    write_figures(record, {"figures": figures})


async def _measure(server: Server, factor: float, seconds: float) -> dict[str, Any]:
    seeds = itertools.count()
    load = OpenLoop(server.url)
    phases: dict[str, dict[str, Any]] = {}

    def texts() -> Iterator[Request]:
        return make_traffic(Kind.distinct, seed=next(seeds)).requests

    async def phase(name: str, rate: float, for_seconds: float = seconds) -> None:
        with console.status(f"{name}: {rate:.0f}/s"):
            planned = load.plan(texts(), rate=rate, seconds=for_seconds)
            phases[name] = await _phase(server, load, planned, rate, for_seconds)

    await phase("warm-up", 20, WARM_UP_SECONDS)
    with console.status("finding the capacity"):
        closed = await send_load(
            server.url,
            make_traffic(Kind.distinct, seed=next(seeds)),
            clients=64,
            seconds=seconds,
            warm_up_seconds=WARM_UP_SECONDS,
        )
    capacity = closed.requests_per_second
    usual_loads = {f"{times:g}x": times * capacity for times in (0.5, 1.0, 1.5, 2.0)}
    overload = f"{factor:g}x"
    for name, rate in (usual_loads | {overload: factor * capacity}).items():
        await phase(name, rate)
    await phase("afterwards, 0.5x", 0.5 * capacity)
    with_load = f"1.5x, beside what makes {overload}"
    more_cores = phases[overload]["cores"]["load"] - phases["1.5x"]["cores"]["load"]
    with _taking(more_cores):
        await phase(with_load, 1.5 * capacity)
    closed_loop = closed.figures()
    shown = phases | {CLOSED: {**closed_loop, "answered_per_second": capacity, "cores": {}}}
    rows = [(name, *map(of.get, SHOWN), _shown(of["cores"])) for name, of in shown.items()]
    console.print(make_table("New texts, open loop", ("", *SHOWN.values(), "cores"), rows))
    goodput = phases[overload]["answered_per_second"]
    peak = max(capacity, *(phases[name]["answered_per_second"] for name in usual_loads))
    figures = {
        **phases,
        "capacity_per_second": capacity,
        CLOSED: closed_loop,
        "seconds_to_normal": _seconds_to_normal(
            phases["afterwards, 0.5x"]["by_second"], 3 * phases["0.5x"]["p99_ms"]
        ),
        "goodput_of_peak": goodput / peak,
        "goodput_of_what_the_load_leaves": goodput / phases[with_load]["answered_per_second"],
    }
    console.print(
        f"at {overload}: {figures['goodput_of_peak']:.0%} of the peak, "
        f"{figures['goodput_of_what_the_load_leaves']:.0%} of what the service does with the cores "
        f"that making {overload} leaves; back to normal after {figures['seconds_to_normal']} s"
    )
    with console.status("small requests beside large ones"):
        figures["beside_large"] = await _beside_large(server, load, texts(), seconds)
    console.print(figures["beside_large"])
    load.close()
    return figures


async def _phase(
    server: Server, load: OpenLoop, planned: Sequence[Planned], rate: float, seconds: float
) -> dict[str, Any]:
    before, load_before, started = cpu_seconds(server.pid), time.process_time(), time.perf_counter()
    async with sampled(lambda: _resident_mib(server), 0.5) as mebibytes:
        outcomes = await load.send(planned)
        elapsed = time.perf_counter() - started
        used = {"load": time.process_time() - load_before, **cpu_seconds(server.pid, before)}
    by_second: dict[int, list[Outcome]] = defaultdict(list)
    first_due = min(outcome.due for outcome in outcomes)
    for outcome in outcomes:
        by_second[int(outcome.due - first_due)].append(outcome)
    return {
        "asked_per_second": round(rate, 1),
        **_figures(outcomes, seconds),
        "resident_mib": round(max(mebibytes)),
        "cores": {role: round(of / elapsed, 2) for role, of in used.items()},
        "by_second": [_figures(by_second[second], 1.0) for second in sorted(by_second)],
    }


def _resident_mib(server: Server) -> float:
    return sum(mebibytes for _, _, mebibytes in of_each_role(server.pid, resident_mib))


def _shown(cores: dict[str, float]) -> str:
    return " ".join(f"{role} {used}" for role, used in cores.items() if used >= 0.1)


def _seconds_to_normal(by_second: Sequence[dict[str, Any]], slow_ms: float) -> int:
    """The last second in which anything was refused or slow."""
    slow = [of["statuses"].keys() != {"200"} or of["p99_ms"] > slow_ms for of in by_second]
    return max((second for second, is_slow in enumerate(slow, start=1) if is_slow), default=0)


async def _beside_large(
    server: Server, load: OpenLoop, texts: Iterator[Request], seconds: float
) -> dict[str, Any]:
    """Single texts alone, and while eight clients send 100 reviews at a time."""

    async def small(for_seconds: float) -> dict[str, Any]:
        rate = 10.0
        outcomes = await load.send(load.plan(texts, rate=rate, seconds=for_seconds))
        figures = _figures(outcomes, for_seconds)
        return {key: figures[key] for key in ("p50_ms", "p99_ms", "statuses")}

    alone = await small(seconds)
    traffic = make_traffic(Kind.distinct, seed=-1, words=REVIEW_WORDS, batch_texts=REVIEWS)
    large = asyncio.create_task(
        send_load(server.url, traffic, clients=8, seconds=seconds, think=(0.5, 1.5))
    )
    await asyncio.sleep(seconds / 5)
    beside = await small(seconds / 2)
    report = await large
    return {"small_alone": alone, "small_beside": beside, f"large_{BATCH}": report.figures()}


def _figures(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    answered = [outcome.latency_seconds for outcome in outcomes if outcome.ok]
    refused = [outcome.latency_seconds for outcome in outcomes if outcome.status in (429, 503)]
    return {
        "answered_per_second": round(len(answered) / seconds, 1),
        "p50_ms": percentile_ms(answered, 50),
        "p99_ms": percentile_ms(answered, 99),
        "refused_p50_ms": percentile_ms(refused, 50),
        "refused_p99_ms": percentile_ms(refused, 99),
        "statuses": dict(Counter(str(outcome.status) for outcome in outcomes)),
    }


@contextmanager
def _taking(cores: float) -> Iterator[None]:
    """A process that computes so much of the time, in pieces as short as those of a load."""
    process = multiprocessing.get_context("spawn").Process(target=_take, args=(cores,))
    with safe_path():
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
