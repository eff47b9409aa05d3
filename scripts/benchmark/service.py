"""Ours against the baseline and the peer, end to end: all are up, one at a time is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from loadtest.traffic import Kind
from scripts.benchmark.engines import Step
from scripts.benchmark.measure import Load, measure
from scripts.benchmark.plan import Cell, Plan
from scripts.benchmark.servers import Server, Site, baseline, peer


def measure_service(plan: Plan, where: Site, ours: Server, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each cell, round and server."""
    with ExitStack() as stack:
        step("service: starting the baseline and the peer")
        theirs = [stack.enter_context(start(where)) for start in (baseline, peer)]
        for server in theirs:
            server.wait_until_ready()
        for number in range(plan.rounds):
            # Each round has new texts, the same for every server.
            for cell in (cell for cell in plan.cells if number < plan.rounds_of(cell)):
                for server in _measured(cell, ours, *theirs):
                    load = Load(
                        cell.kind,
                        cell.clients,
                        plan.seconds,
                        plan.warm_up_seconds,
                        seed=_seed(plan, cell, number),
                        think=cell.think,
                    )
                    step(f"service: {cell.kind}, {cell.clients} clients, {server.name}")
                    figures = measure(server.url, load)
                    yield {
                        "part": "service",
                        "server": server.name,
                        "round": number,
                        **load.facts(),
                        **figures,
                    }


def service_steps(plan: Plan) -> int:
    return 1 + sum(
        (3 if cell.kind is Kind.distinct else 2) * plan.rounds_of(cell) for cell in plan.cells
    )


def _measured(cell: Cell, ours: Server, theirs: Server, best: Server) -> Iterator[Server]:
    yield ours
    yield theirs
    if cell.kind is Kind.distinct:  # the peer has no cache, no batches, and no second version
        yield best


def _seed(plan: Plan, cell: Cell, number: int) -> int:
    return 1_000 * (number + 1) + plan.cells.index(cell)
