"""How long our service takes from its start to ready, and the memory of its processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil

from loadtest.bench.engines import Step
from loadtest.bench.measure import Load, measure
from loadtest.bench.plan import STARTER, Plan
from loadtest.bench.servers import Server, Site, our_service
from loadtest.traffic import Kind

_LOAD_CLIENTS = 64
_FIRST_SEED = 800_000  # of no other part


def measure_start(plan: Plan, where: Site, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each start but the last, which is that of the service that others measure."""
    for number in range(plan.starts - 1):
        step("start: from `bentoml serve` to ready")
        with our_service(where) as server:
            yield measure_one_start(plan, server, number)


def measure_one_start(
    plan: Plan, server: Server, number: int, size: str = STARTER
) -> dict[str, Any]:
    """The row of a service that was started just now; models are saved and databases are up."""
    ready_seconds = server.wait_until_ready()
    idle = _memory(server, "idle")
    load = Load(Kind.distinct, _LOAD_CLIENTS, plan.seconds, 0.0, seed=_FIRST_SEED + number)
    measure(server.url, load)
    return {
        "part": "start",
        "size": size,
        "round": number,
        "ready_seconds": ready_seconds,
        **idle,
        **_memory(server, "loaded"),
    }


def start_steps(plan: Plan) -> int:
    return plan.starts


def _memory(server: Server, when: str) -> dict[str, float]:
    """Mebibytes of the service's process tree.

    RSS counts a page that processes share once for each of them, PSS once in all.
    """
    root = psutil.Process(server.process.pid)
    processes = [root, *root.children(recursive=True)]
    infos = [process.memory_full_info() for process in processes]
    return {
        f"{when}_processes": len(infos),
        f"{when}_rss_mib": sum(info.rss for info in infos) / 2**20,
        f"{when}_pss_mib": sum(info.pss for info in infos) / 2**20,
    }
