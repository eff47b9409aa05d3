"""How the cost of ours grows with tokens, texts and clients, and what it adds to its engine's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from loadtest.bench.engine_worker import TextsQuestion
from loadtest.bench.engines import Step, worker
from loadtest.bench.measure import Load, measure
from loadtest.bench.models import served_model
from loadtest.bench.plan import Plan
from loadtest.bench.servers import Server
from loadtest.traffic import USUAL_WORDS, Kind

_BATCH_TEXTS = 100
# One request can wait, another be parsed and a third computed at the same time.
_BATCH_CLIENTS = 3
_ENGINE_ROWS = (4, 8, 16, 32)
_ENGINE_SETS = 3
_FIRST_SEED = 900_000  # of no other part


def measure_cost(plan: Plan, ours: Server, step: Step) -> Iterator[dict[str, Any]]:
    """Rows of what grows, and of /predict/batch beside the engine alone."""
    seeds = iter(range(_FIRST_SEED, 2 * _FIRST_SEED))
    loads = [
        *(("tokens", words, words, 0, 8) for words in plan.cost_tokens),
        *(("texts in a batch", size, USUAL_WORDS, size, 1) for size in plan.cost_batches),
        *(("clients", clients, USUAL_WORDS, 0, clients) for clients in plan.cost_clients),
    ]
    for grows, size, words, batch_texts, clients in loads:
        step(f"cost: {size} {grows}")
        load = Load(
            Kind.distinct,
            clients,
            plan.seconds,
            plan.warm_up_seconds,
            seed=next(seeds),
            words=words,
            batch_texts=batch_texts,
        )
        figures = measure(ours.url, load)
        yield {"part": "cost", "grows": grows, "size": size, **load.facts(), **figures}
    yield from _beside_the_engine(plan, ours, seeds, step)


def cost_steps(plan: Plan) -> int:
    growing = len(plan.cost_tokens) + len(plan.cost_batches) + len(plan.cost_clients)
    return growing + 1 + plan.rounds


def _beside_the_engine(
    plan: Plan, ours: Server, seeds: Iterator[int], step: Step
) -> Iterator[dict[str, Any]]:
    step("cost: loading the engine alone")
    engine = httpx.get(f"{ours.url}/health").json()["versions"]["v1"]["engine"]
    with worker(served_model(), engine) as alone:
        for number in range(plan.rounds):
            step("cost: batches of 100 texts beside the engine alone")
            load = Load(
                Kind.mixed_length,
                _BATCH_CLIENTS,
                plan.seconds,
                plan.warm_up_seconds,
                seed=next(seeds),
                batch_texts=_BATCH_TEXTS,
            )
            figures = measure(ours.url, load)
            by_rows = {
                rows: alone.answer(TextsQuestion(rows, _ENGINE_SETS, load.seed))
                for rows in _ENGINE_ROWS
            }
            best_rows = max(by_rows, key=lambda rows: by_rows[rows]["texts_per_second"])
            yield {
                "part": "cost",
                "grows": "beside the engine",
                "round": number,
                "engine": engine,
                "engine_rows": best_rows,
                "engine_texts_per_second": by_rows[best_rows]["texts_per_second"],
                **load.facts(),
                **figures,
            }
