"""Ours against the baseline and the peer, end to end: one at a time runs and is measured.

And the start of ours: how long it takes, and the memory of its processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from loadtest.bench.engines import Step
from loadtest.bench.measure import Load, measure
from loadtest.bench.plan import BASE, STARTER, Cell, Plan
from loadtest.bench.processes import processes
from loadtest.bench.servers import PEER, Server, Site, alone, baseline, our_service, peer
from loadtest.traffic import Kind

# Nothing is refused, as the others refuse nothing: what is compared is how fast they are.
LONG_QUEUE = {"MAX_QUEUE_SECONDS": "60", "MAX_BULK_QUEUE_SECONDS": "60"}
_START_CLIENTS = 64
_FIRST_START_SEED = 800_000  # of no other part


def measure_starts(plan: Plan, where: Site, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each start but the last, which is that of the service that others measure."""
    for number in range(plan.starts - 1):
        step("start: from `bentoml serve` to ready")
        with our_service(where) as server:
            yield measure_start(plan, server, number)


def measure_start(plan: Plan, server: Server, number: int, size: str = STARTER) -> dict[str, Any]:
    """The row of a service that was started just now; models are saved and databases are up."""
    ready_seconds = server.wait_until_ready()
    idle = _memory(server, "idle")
    seed = _FIRST_START_SEED + number
    measure(server.url, Load(Kind.distinct, _START_CLIENTS, plan.seconds, 0.0, seed=seed))
    row = {"part": "start", "size": size, "round": number, "ready_seconds": ready_seconds}
    return {**row, **idle, **_memory(server, "loaded")}


def _memory(server: Server, when: str) -> dict[str, float]:
    """Mebibytes of the service's process tree.

    RSS counts a page that processes share once for each of them, PSS once in all.
    """
    infos = [process.memory_full_info() for process in processes(server.pid)]
    return {
        f"{when}_processes": len(infos),
        f"{when}_rss_mib": sum(info.rss for info in infos) / 2**20,
        f"{when}_pss_mib": sum(info.pss for info in infos) / 2**20,
    }


def measure_service(plan: Plan, where: Site, ours: Server, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each cell, round and server."""
    with ExitStack() as stack:
        step("service: starting the baseline and the peer")
        theirs = [stack.enter_context(start(where)) for start in (baseline, peer)]
        for server in theirs:
            server.wait_until_ready()
        yield from _measure_cells(plan, plan.cells, STARTER, [ours, *theirs], step)


def measure_base_size(plan: Plan, where: Site, step: Step) -> Iterator[dict[str, Any]]:
    """Ours and the peer on the models of `where`, which are of base size; and our start."""
    step("base size: from `bentoml serve` to ready")
    with our_service(where, **LONG_QUEUE) as ours:
        yield measure_start(plan, ours, 0, BASE)
        with peer(where) as best:
            best.wait_until_ready()
            yield from _measure_cells(plan, plan.base_cells, BASE, [ours, best], step)


def _measure_cells(
    plan: Plan, cells: Sequence[Cell], size: str, servers: Sequence[Server], step: Step
) -> Iterator[dict[str, Any]]:
    seeds = {cell: number for number, cell in enumerate(plan.cells + plan.base_cells)}
    rounds = ((number, cell) for number in range(plan.rounds) for cell in cells)
    for number, cell in rounds:
        if number >= plan.rounds_of(cell):
            continue
        load = Load(
            cell.kind,
            cell.clients,
            plan.seconds * cell.longer,
            plan.warm_up_seconds,
            # Each round has new texts, the same for every server.
            seed=1_000 * (number + 1) + seeds[cell],
            think=cell.think,
        )
        for server in servers:
            # The peer has no cache, no batches, and no second version.
            if server.name == PEER and cell.kind is not Kind.distinct:
                continue
            step(f"service: {size} size, {cell.kind}, {cell.clients} clients, {server.name}")
            row = {"size": size, "part": "service", "server": server.name, "round": number}
            with alone(server, *servers):
                yield {**row, **load.facts(), **measure(server.url, load)}
