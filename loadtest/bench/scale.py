"""Measures the gain of a second core for the models and for the API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import psutil
import typer
import uvloop

from core.command_output import JsonOption
from loadtest.bench.processes import cpu_seconds, of_each_role
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import Site, our_service, site
from loadtest.generator import send_load
from loadtest.table import console, make_table
from loadtest.traffic import Kind, make_traffic

CLIENTS = 32
WARM_UP_SECONDS = 3.0
RUNNERS = ("v1", "v2")


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
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """New texts for the models, the same texts for the API; needs two cores."""
    figures: dict[str, Any] = {}
    with site() as where:
        for layout in LAYOUTS:
            with console.status(layout.name):
                figures[layout.name] = _measure(where, layout, seconds)
    rows = [
        (name, of["requests_per_second"], of["cores"]["runners"], of["cores"]["api"], of["p50_ms"])
        for name, of in figures.items()
    ]
    columns = ("", "requests/s", "cores: runners", "api", "p50 ms")
    console.print(make_table("requests/s", columns, rows))
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
        for role, _, threads in of_each_role(server.pid, psutil.Process.threads):
            for thread in threads:
                os.sched_setaffinity(thread.id, layout.runners if role in RUNNERS else layout.api)
        os.sched_setaffinity(0, layout.load)
        try:
            before = cpu_seconds(server.pid)
            load = send_load(
                server.url,
                make_traffic(layout.kind, seed=0),
                clients=CLIENTS,
                seconds=seconds,
                warm_up_seconds=WARM_UP_SECONDS,
            )
            report = uvloop.run(load)
            used = cpu_seconds(server.pid, before)
        finally:
            os.sched_setaffinity(0, everywhere)
    runners = sum(used[role] for role in RUNNERS)
    elapsed = seconds + WARM_UP_SECONDS
    cores = {
        "runners": round(runners / elapsed, 2),
        "api": round((sum(used.values()) - runners) / elapsed, 2),
    }
    return report.figures() | {"cores": cores, "layout": layout._asdict()}
