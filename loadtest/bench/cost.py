"""How the cost of ours grows with tokens, texts and clients, and what it adds to its engine's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx

from loadtest.bench.engines import LoadedEngine, Step, worker
from loadtest.bench.measure import Load, measure
from loadtest.bench.models import served_model
from loadtest.bench.plan import Plan
from loadtest.bench.servers import Server
from loadtest.traffic import Kind

# One request can wait, another be parsed and a third computed at the same time.
_BATCH_CLIENTS = 3
_ENGINE_ROWS = (4, 8, 16, 32)
_ENGINE_SETS = 3
_FIRST_SEED = 900_000  # of no other part


def measure_cost(plan: Plan, ours: Server, step: Step) -> Iterator[dict[str, Any]]:
    """Rows of what grows, and of /predict/batch beside the engine alone."""
    usual = Load(Kind.distinct, 1, plan.seconds, plan.warm_up_seconds)
    loads = [
        *(("tokens", size, replace(usual, clients=8, words=size)) for size in plan.cost_tokens),
        *(
            ("texts in a batch", size, replace(usual, batch_texts=size))
            for size in plan.cost_batches
        ),
        *(("clients", size, replace(usual, clients=size)) for size in plan.cost_clients),
    ]
    for seed, (grows, size, load) in enumerate(loads, start=_FIRST_SEED):
        step(f"cost: {size} {grows}")
        figures = measure(ours.url, replace(load, seed=seed))
        yield {"part": "cost", "grows": grows, "size": size, **load.facts(), **figures}
    step("cost: loading the engine alone")
    engine = httpx.get(f"{ours.url}/health", trust_env=False).json()["versions"]["v1"]["engine"]
    batches = replace(usual, kind=Kind.mixed_length, clients=_BATCH_CLIENTS, batch_texts=100)
    with worker(served_model(), engine) as call:
        for number in range(plan.rounds):
            step("cost: batches of 100 texts beside the engine alone")
            seed = _FIRST_SEED + len(loads) + number
            figures = measure(ours.url, replace(batches, seed=seed))
            by_rows = {
                rows: call(LoadedEngine.measure_texts, rows, _ENGINE_SETS, seed)
                for rows in _ENGINE_ROWS
            }
            best_rows = max(by_rows, key=by_rows.__getitem__)
            yield {
                "part": "cost",
                "grows": "beside the engine",
                "round": number,
                "engine": engine,
                "engine_rows": best_rows,
                "engine_texts_per_second": by_rows[best_rows],
                **batches.facts(),
                **figures,
            }
