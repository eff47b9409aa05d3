"""Measures the gain of a second core for the models and for the API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.bench.record import write_figures
from loadtest.bench.servers import Server, Site, our_service, site
from loadtest.generator import send_load
from loadtest.traffic import Kind, make_traffic

CLIENTS = 32
WARM_UP_SECONDS = 3.0
console = Console(highlight=False)


class Layout(NamedTuple):
    """Which cores each role may use; the load is made on those of `load`."""

    name: str
    kind: Kind
    runners: Sequence[int]
    api: Sequence[int]
    api_workers: int
    load: Sequence[int]


LAYOUTS = (
    Layout("models on one core, all else on the other", Kind.distinct, [0], [1], 1, [1]),
    Layout("models on both, all else on either", Kind.distinct, [0, 1], [0, 1], 1, [0, 1]),
    Layout("API on one core, the load on the other", Kind.repeated, [1], [0], 1, [1]),
    Layout("API on both, two processes, the load too", Kind.repeated, [0, 1], [0, 1], 2, [0, 1]),
)


def main(
    seconds: Annotated[float, typer.Option(help="seconds for each layout")] = 15.0,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """New texts for the models, the same texts for the API; needs two cores."""
    table = Table(title="requests/s", title_justify="left")
    for column in ("", "requests/s", "cores: runners", "api", "p50 ms"):
        table.add_column(column, justify="right" if column else "left")
    figures: dict[str, Any] = {}
    with site() as where:
        for layout in LAYOUTS:
            with console.status(layout.name):
                measured = figures[layout.name] = _measure(where, layout, seconds)
            table.add_row(
                layout.name,
                f"{measured['requests_per_second']:,.0f}",
                *(f"{measured['cores'][role]:.2f}" for role in ("runners", "api")),
                f"{measured['p50_ms']:.1f}",
            )
    console.print(table)
    if record is not None:
        write_figures(record, {"figures": figures})


def _measure(where: Site, layout: Layout, seconds: float) -> dict[str, Any]:
    everywhere = os.sched_getaffinity(0)
    settings = {
        "API_WORKERS": str(layout.api_workers),
        "RUNNER_THREADS": str(len(layout.runners)),
        "MAX_QUEUE_SECONDS": "60",
    }
    with our_service(where, **settings) as server:
        server.wait_until_ready()
        roles = _roles(server)
        for role, cores in (("runners", layout.runners), ("api", layout.api)):
            for process in roles[role]:
                _pin(process, cores)
        os.sched_setaffinity(0, layout.load)
        try:
            before = {role: _cpu_seconds(processes) for role, processes in roles.items()}
            report = uvloop.run(
                send_load(
                    server.url,
                    make_traffic(layout.kind, seed=0),
                    clients=CLIENTS,
                    seconds=seconds,
                    warm_up_seconds=WARM_UP_SECONDS,
                )
            )
            after = {role: _cpu_seconds(processes) for role, processes in roles.items()}
        finally:
            os.sched_setaffinity(0, everywhere)
    elapsed = seconds + WARM_UP_SECONDS
    used = {role: round((after[role] - before[role]) / elapsed, 2) for role in roles}
    return report.figures() | {"cores": used, "layout": layout._asdict()}


def _roles(server: Server) -> dict[str, list[psutil.Process]]:
    """The runners' processes, and all others: the API's, the shipper, the supervisor."""
    root = psutil.Process(server.process.pid)
    processes = [root, *root.children(recursive=True)]
    runners = [
        process for process in processes if "sentiment_runner" in " ".join(process.cmdline())
    ]
    return {"runners": runners, "api": [process for process in processes if process not in runners]}


def _pin(process: psutil.Process, cores: Sequence[int]) -> None:
    """Pin every thread of `process`, the running ones included."""
    for thread in process.threads():
        os.sched_setaffinity(thread.id, cores)


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
