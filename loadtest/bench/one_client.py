"""Where one client's time goes: `python -m loadtest.bench.one_client`, on a quiet machine.

Medians of the served product and of its engine, in turns, tell the parts of a new text. While one
part works the others are idle: their cores sleep, and the caches forget them. So each is measured
after a pause:

* *engine*: the texts one after the other, by tokenizer and engine alone, without a pause.
* *its pause*: how much longer the engine takes for a text after one.
* *HTTP and API*: a cached text whose line is not synced. The client's own time is in it.
* *log*: how much longer a cached text takes whose line is synced.
* *runner and back*: what a new text takes beyond these: the look-up in Redis, the stream to the
  runner, its queue, and the way back.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import cast

import httpx

from core.types import EngineName
from loadtest.bench.measure import Load, measure
from loadtest.bench.own_process import own_process
from loadtest.bench.servers import Server, alone, our_service, site
from loadtest.table import console, make_table
from loadtest.traffic import Kind, texts_of
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import load_engine
from runners.model_store import SavedModel

TURNS = 5
SECONDS = 6.0
WARM_UP_SECONDS = 2.0
ALONE_TEXTS = 400
# About as long as each part waits for the others.
PAUSE_SECONDS = 0.004

_alone: list[Classifier] = []  # in its process, the classifier


def _load_alone(model: SavedModel, engine: str) -> None:
    loaded = load_engine(model, cast("EngineName", engine), streams=usable_cpus())
    _alone.append(Classifier(model, loaded))


def _time_alone(texts: list[str], pause_seconds: float = 0.0) -> float:
    """The median time of one text after the other, in milliseconds, each after a pause."""

    def took(text: str) -> float:
        if pause_seconds:
            time.sleep(pause_seconds)
        started = time.perf_counter()
        _alone[0].infer([text])
        return 1_000 * (time.perf_counter() - started)

    return statistics.median(map(took, texts))


def measure_turn(
    synced: Server, unsynced: Server, engine_alone: ProcessPoolExecutor, turn: int
) -> dict[str, float]:
    """The medians of one turn, in milliseconds."""
    seed = 1_000 + turn

    def p50_ms(server: Server, kind: Kind) -> float:
        with alone(server, synced, unsynced):
            pause = PAUSE_SECONDS if kind is Kind.repeated else 0.0
            load = Load(kind, 1, SECONDS, WARM_UP_SECONDS, seed=seed, think=(pause, pause))
            return float(measure(server.url, load)["p50_ms"])

    new = p50_ms(synced, Kind.distinct)
    cached, unsynced_cached = (p50_ms(server, Kind.repeated) for server in (synced, unsynced))
    texts = list(itertools.islice(texts_of(Kind.distinct, seed=seed), ALONE_TEXTS))
    with alone(synced, synced, unsynced), alone(unsynced, synced, unsynced):
        engine = engine_alone.submit(_time_alone, texts).result()
        idle = engine_alone.submit(_time_alone, texts, PAUSE_SECONDS).result()
    return {
        "new text": new,
        "engine": engine,
        "more": new - engine,
        "its pause": idle - engine,
        "HTTP and API": unsynced_cached,
        "log": cached - unsynced_cached,
        "runner and back": new - idle - cached,
    }


def medians(turns: list[dict[str, float]]) -> Mapping[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def main() -> None:
    with (
        site() as where,
        our_service(where) as synced,
        our_service(where, LOG_DURABILITY="page_cache") as unsynced,
        own_process() as engine_alone,
    ):
        for server in (synced, unsynced):
            server.wait_until_ready()
        health = httpx.get(f"{synced.url}/health").raise_for_status().json()
        engine_alone.submit(
            _load_alone, where.models["v1"], health["versions"]["v1"]["engine"]
        ).result()
        engine_alone.submit(_time_alone, ["A first text."] * 20).result()
        turns = [measure_turn(synced, unsynced, engine_alone, turn) for turn in range(TURNS)]
    rows = [[str(number), *turn.values()] for number, turn in enumerate(turns, 1)]
    rows.append(["median", *medians(turns).values()])
    console.print(make_table("one client, p50 in ms", ["turn", *turns[0]], rows))


if __name__ == "__main__":
    main()
