"""Ours against the baseline and the peer, end to end: one at a time runs and is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from loadtest.bench.engines import Step
from loadtest.bench.measure import Load, measure
from loadtest.bench.plan import BASE, STARTER, Cell, Plan
from loadtest.bench.servers import Server, Site, baseline, our_service, peer
from loadtest.bench.start import measure_one_start
from loadtest.traffic import Kind


def measure_service(plan: Plan, where: Site, ours: Server, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each cell, round and server."""
    with ExitStack() as stack:
        step("service: starting the baseline and the peer")
        theirs = [stack.enter_context(start(where)) for start in (baseline, peer)]
        for server in theirs:
            server.wait_until_ready()
        for number, cell in _rounds(plan, plan.cells):
            for server in _measured(cell, ours, *theirs):
                step(f"service: {cell.kind}, {cell.clients} clients, {server.name}")
                with _alone(server, ours, *theirs):
                    figures = _measure_cell(plan, cell, server, number)
                yield {"size": STARTER} | figures


def measure_base_size(plan: Plan, where: Site, step: Step) -> Iterator[dict[str, Any]]:
    """Ours and the peer on the models of `where`, which are of base size; and our start."""
    step("base size: from `bentoml serve` to ready")
    # Nothing is refused, as the others refuse nothing: what is compared is how fast they are.
    with our_service(where, MAX_QUEUE_SECONDS="60", MAX_BULK_QUEUE_SECONDS="60") as ours:
        yield measure_one_start(plan, ours, 0, BASE)
        with peer(where) as best:
            best.wait_until_ready()
            for number, cell in _rounds(plan, plan.base_cells):
                for server in (ours, best):
                    step(f"base size: {cell.kind}, {cell.clients} clients, {server.name}")
                    with _alone(server, ours, best):
                        figures = _measure_cell(plan, cell, server, number)
                    yield {"size": BASE} | figures


def service_steps(plan: Plan) -> int:
    of_cells = sum(
        (3 if cell.kind is Kind.distinct else 2) * plan.rounds_of(cell) for cell in plan.cells
    )
    of_base_cells = sum(2 * plan.rounds_of(cell) for cell in plan.base_cells)
    return 1 + of_cells + bool(plan.base_cells) + of_base_cells


@contextmanager
def _alone(server: Server, *servers: Server) -> Iterator[None]:
    """While the block runs, the other `servers` do not."""
    with ExitStack() as stack:
        for other in servers:
            if other is not server:
                stack.enter_context(other.paused())
        yield


def _rounds(plan: Plan, cells: tuple[Cell, ...]) -> Iterator[tuple[int, Cell]]:
    for number in range(plan.rounds):
        yield from ((number, cell) for cell in cells if number < plan.rounds_of(cell))


def _measure_cell(plan: Plan, cell: Cell, server: Server, number: int) -> dict[str, Any]:
    # Each round has new texts, the same for every server.
    cells = plan.cells + plan.base_cells
    load = Load(
        cell.kind,
        cell.clients,
        plan.seconds * cell.longer,
        plan.warm_up_seconds,
        seed=1_000 * (number + 1) + cells.index(cell),
        think=cell.think,
    )
    return {
        "part": "service",
        "server": server.name,
        "round": number,
        **load.facts(),
        **measure(server.url, load),
    }


def _measured(cell: Cell, ours: Server, theirs: Server, best: Server) -> Iterator[Server]:
    yield ours
    yield theirs
    if cell.kind is Kind.distinct:  # the peer has no cache, no batches, and no second version
        yield best
