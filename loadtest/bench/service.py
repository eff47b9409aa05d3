"""Ours against the baseline and the peers, end to end: one at a time runs and is measured.

And the start of ours: how long it takes, and the memory of its processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from loadtest.bench.engines import Step
from loadtest.bench.measure import Load, measure
from loadtest.bench.peers import LITSERVE, Peer
from loadtest.bench.plan import BASE, STARTER, Cell, Plan, has_cell
from loadtest.bench.processes import processes
from loadtest.bench.servers import BASELINE, OURS, Server, Site, alone, baseline, our_service
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
        step("service: starting the baseline")
        theirs = [stack.enter_context(baseline(where))]
        theirs[0].wait_until_ready()
        for peer in plan.peers:
            # One by one: their starts are of many seconds of both cores.
            step(f"service: starting {peer.name}")
            peer.prepare()
            theirs.append(stack.enter_context(peer.running(where)))
            theirs[-1].wait_until_ready()
        yield from _measure_cells(plan, plan.cells, STARTER, [ours, *theirs], step)


def measure_base_size(plan: Plan, where: Site, step: Step) -> Iterator[dict[str, Any]]:
    """Ours and LitServe on the models of `where`, which are of base size; and our start."""
    step("base size: from `bentoml serve` to ready")
    with our_service(where, **LONG_QUEUE) as ours:
        yield measure_start(plan, ours, 0, BASE)
        with Peer(LITSERVE).running(where) as litserve:
            litserve.wait_until_ready()
            yield from _measure_cells(plan, plan.base_cells, BASE, [ours, litserve], step)


def _measure_cells(
    plan: Plan, cells: Sequence[Cell], size: str, servers: Sequence[Server], step: Step
) -> Iterator[dict[str, Any]]:
    peers = {peer.name: peer for peer in plan.peers}
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
            if server.name not in {OURS, BASELINE} and not has_cell(peers[server.name], cell):
                continue
            step(f"service: {size} size, {cell.kind}, {cell.clients} clients, {server.name}")
            row = {"size": size, "part": "service", "server": server.name, "round": number}
            with alone(server, *servers):
                yield {**row, **load.facts(), **measure(server.url, replace(load, api=server.api))}
