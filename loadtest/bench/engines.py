"""Engines against torch in float32: each in its own process, both on all cores, taking turns.

A process for each engine keeps their thread pools apart. While one is measured the other waits for
its next call, and so costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.settings import get_settings
from core.types import VERSIONS, EngineName
from loadtest.bench.own_process import own_process
from loadtest.bench.plan import Plan
from loadtest.traffic import Kind, texts_of
from runners.classifier import Classifier
from runners.cpu import cpu_identity, usable_cpus
from runners.engines.choice import load_engine, saved_engines
from runners.engines.engine import Engine
from runners.engines.fastest import time_in_process
from runners.engines.speeds import SHAPES, fastest_engine
from runners.model_store import SavedModel, find_model

# torch in float32, one batch at a time on all cores, as transformers runs it.
REFERENCE = "reference"
# What the peers compute with at their best: a batch at a time on each core.
TORCH_BF16 = "torch-bf16"
_SHAPE_SECONDS = 5.0

Ids = NDArray[np.int64]
Step = Callable[[str], None]  # says what is next
# Calls a method of the engine that is loaded in another process.
Call = Callable[..., Any]


def measure_engines(
    plan: Plan, models: Mapping[str, SavedModel], step: Step
) -> Iterator[dict[str, Any]]:
    """A row for each size, engine, shape and round, with the reference's figures beside it."""
    for size, model in models.items():
        with worker(model, REFERENCE) as reference:
            for engine in (*saved_engines(model), TORCH_BF16):
                step(f"engines: {size} size, {engine}")
                with worker(model, engine) as measured:
                    for row in _take_turns(plan, reference, measured):
                        yield {"part": "engines", "size": size, "engine": engine, **row}


def _take_turns(plan: Plan, reference: Call, measured: Call) -> Iterator[dict[str, Any]]:
    for texts, tokens in plan.shapes:
        started = time.perf_counter()
        for number in range(plan.engine_rounds):
            # A large batch of the base size takes seconds, so it gets one round.
            if number and time.perf_counter() - started > _SHAPE_SECONDS:
                break
            theirs, ours = (
                call(LoadedEngine.measure_shape, texts, tokens, plan.engine_seconds, not number)
                for call in (reference, measured)
            )
            yield {
                "texts": texts,
                "tokens": tokens,
                "round": number,
                **ours,
                **{f"reference_{name}": value for name, value in theirs.items()},
            }


@contextmanager
def worker(model: SavedModel, engine: str) -> Iterator[Call]:
    """Load an engine in a process of its own.

    Raises:
        EngineUnavailable: it cannot be loaded.
        BrokenProcessPool: its process crashed, in this call or a later one.
    """
    with own_process() as process:
        process.submit(_load, model, engine).result()
        yield lambda method, *arguments: process.submit(_call, method, *arguments).result()


_loaded: list[LoadedEngine] = []  # in its process, the engine


def _load(model: SavedModel, engine: str) -> None:
    _loaded.append(LoadedEngine(model, engine))


def _call(method: Callable[..., Any], *arguments: Any) -> Any:
    return method(_loaded[0], *arguments)


class LoadedEngine:
    """An engine in its process, and how many batches it computes at once, on all cores."""

    def __init__(self, model: SavedModel, name: str) -> None:
        self._model = model
        self._streams = 1 if name == REFERENCE else usable_cpus()
        self._engine: Engine = (
            Torch(model, name, threads=usable_cpus() // self._streams)
            if name in (REFERENCE, TORCH_BF16)
            else load_engine(model, cast("EngineName", name), streams=self._streams)
        )

    def measure_shape(
        self, rows: int, tokens: int, seconds: float, first: bool
    ) -> dict[str, float]:
        """Texts/s of batches of one shape, and the latency of one batch alone."""
        ids = np.random.default_rng(0).integers(1_000, 30_000, size=(rows, tokens))
        mask = np.ones_like(ids)
        if first:
            self._engine.infer(ids, mask)  # the first of a shape may compile something

        def stream(_number: int) -> float:
            batches, started = 0, time.perf_counter()
            while not batches or time.perf_counter() - started < seconds:
                self._engine.infer(ids, mask)
                batches += 1
            return batches * rows / (time.perf_counter() - started)

        def rows_per_second(streams: int) -> float:
            # Never in the main thread: there, torch was 1.5 times as fast or 10 times slower.
            with ThreadPoolExecutor(streams) as threads:
                return sum(threads.map(stream, range(streams)))

        alone = rows_per_second(1)
        together = rows_per_second(self._streams) if self._streams > 1 else alone
        return {"texts_per_second": together, "batch_alone_ms": 1_000 * rows / alone}

    def measure_texts(self, rows: int, sets: int, seed: int) -> float:
        """Texts/s over `sets` sets of 100 distinct texts of mixed length, in batches of `rows`.

        Every set is sorted by length, as a batch request can be; the streams never run dry.
        """
        classifier = Classifier(self._model, self._engine)
        texts = texts_of(Kind.mixed_length, seed=seed)
        batches = []
        for _ in range(sets):
            encodings = classifier.encode(list(itertools.islice(texts, 100)))
            encodings.sort(key=lambda encoding: len(encoding.ids), reverse=True)
            batches += [
                classifier.pad(encodings[start : start + rows])
                for start in range(0, len(encodings), rows)
            ]
        self._engine.infer(*batches[0])
        started = time.perf_counter()
        infer_all(self._engine, batches, self._streams)
        return 100 * sets / (time.perf_counter() - started)


class Torch:
    """A model as transformers runs it, in float32 or bf16."""

    def __init__(self, model: SavedModel, name: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(threads)
        self.name, self._torch = name, torch
        self._network = AutoModelForSequenceClassification.from_pretrained(
            model.folder,
            local_files_only=True,
            dtype=torch.bfloat16 if name == TORCH_BF16 else torch.float32,
        ).eval()

    def infer(self, input_ids: Ids, attention_mask: Ids) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            logits: NDArray[np.float32] = (
                self._network(
                    input_ids=self._torch.from_numpy(input_ids),
                    attention_mask=self._torch.from_numpy(attention_mask),
                )
                .logits.float()
                .numpy()
            )
        return logits


def infer_all(engine: Engine, batches: list[tuple[Ids, Ids]], streams: int) -> None:
    """Compute all batches, each on the next of the engine's streams that is free."""
    with ThreadPoolExecutor(streams) as threads:
        for _ in threads.map(engine.infer, *zip(*batches, strict=True)):
            pass


def main() -> None:
    """Print the texts/s of both served models' engines as a runner times them, and its choice."""
    settings = get_settings()
    for version in VERSIONS:
        model = find_model(settings.model_tag(version))
        names = saved_engines(model, mkldnn=settings.mkldnn_enable)
        speeds = asyncio.run(time_in_process(model, names))
        table = Table(f"{model.tag}, texts/s", box=None, pad_edge=False)
        for rows, tokens in SHAPES:
            table.add_column(f"{rows}x{tokens}", justify="right")
        for name in names:
            table.add_row(name, *(f"{figure:,.0f}" for figure in speeds.get(name, ())))
        console = Console()
        console.print(table)
        console.print(f"chosen on {cpu_identity()}: {fastest_engine(names, speeds)}\n")


if __name__ == "__main__":
    main()
