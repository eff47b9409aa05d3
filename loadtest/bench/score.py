"""Measures how much of the engine's own speed is left when a file is scored."""

from __future__ import annotations

import itertools
import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Encoding

from core.settings import get_settings
from core.types import Version
from loadtest.bench.record import write_figures
from loadtest.traffic import Kind, texts_of
from runners.classifier import Classifier
from runners.engines.choice import choose_engine
from runners.engines.engine import Engine
from runners.model_store import find_model
from runners.packing import pack
from scoring.chunks import CHUNK_ROWS
from scoring.job import Format, Job, score_file
from scoring.scorer import LoadedModel, Scorer, streams_of

Ids = NDArray[np.int64]
VERSION: Version = "v1"
console = Console(highlight=False)


class Cost(NamedTuple):
    """Rows a second, which other work on the machine lowers, and CPU of a row, which it hardly
    does."""

    rate: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} rows/s, {self.cpu_ms:.2f} ms CPU a row"

    @classmethod
    def median(cls, costs: Sequence[Cost]) -> Cost:
        return cls(*(statistics.median(values) for values in zip(*costs, strict=True)))


def main(
    rows: Annotated[
        int, typer.Option(min=1, help="texts, as long as sentences of reviews")
    ] = 4_096,
    rounds: Annotated[int, typer.Option(min=1, help="of the engine alone, and of scoring")] = 3,
    record: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
) -> None:
    """Compute the same batches with the engine alone and by scoring a file, by turns."""
    settings = get_settings()
    streams = streams_of(settings)
    saved = find_model(settings.model_tag(VERSION))
    engine_name = None if settings.engine == "auto" else settings.engine
    engine = choose_engine(saved, engine_name, streams=streams, mkldnn=settings.mkldnn_enable)
    classifier = Classifier(saved, engine)
    classifier.warm_up()
    models: dict[Version, LoadedModel] = {VERSION: LoadedModel(classifier, engine.name)}
    texts = list(itertools.islice(texts_of(Kind.sentences, seed=1), rows))
    batches = _batches(classifier, texts, saved.pad_token_id)
    alone: list[Cost] = []
    scored: dict[Format, list[Cost]] = {format_: [] for format_ in Format}

    def engine_alone() -> None:
        _compute(engine, batches, streams)

    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        source = Path(folder) / "in.jsonl"
        source.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
        for turn in range(rounds):
            for format_, costs in scored.items():
                job = Job(source, Path(folder) / f"{turn}.{format_}", "text", [VERSION])
                alone.append(_cost(engine_alone, rows))
                costs.append(_cost(partial(_score, job, models, streams), rows))
            console.print(f"turn {turn + 1} of {rounds}")
    usual = Cost.median(alone)
    console.print(f"{engine.name}, {streams} streams, alone: {usual}")
    for format_, costs in scored.items():
        cost = Cost.median(costs)
        console.print(
            f"jsonl to {format_.value}: {cost}; {cost.rate / usual.rate:.0%} of the rate, "
            f"{cost.cpu_ms / usual.cpu_ms:.0%} of the CPU"
        )
    if record is not None:
        figures = {
            "engine": engine.name,
            "streams": streams,
            "alone": [cost._asdict() for cost in alone],
            "scored": {name: [cost._asdict() for cost in costs] for name, costs in scored.items()},
        }
        write_figures(record, figures)


def _score(job: Job, models: Mapping[Version, LoadedModel], streams: int) -> None:
    with Scorer(models, streams=streams) as scorer:
        score_file(scorer, job, lambda *_: None)


def _cost(work: Callable[[], object], rows: int) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    rate = rows / (time.perf_counter() - started)
    return Cost(rate, 1_000 * (time.process_time() - cpu) / rows)


def _batches(model: Classifier, texts: Sequence[str], pad_token_id: int) -> list[tuple[Ids, Ids]]:
    """Those that scoring makes of the same texts, padded already."""
    padded = []
    for start in range(0, len(texts), CHUNK_ROWS):
        encodings = model.encode(texts[start : start + CHUNK_ROWS])
        padded += [
            _padded([encodings[row] for row in rows], pad_token_id)
            for rows in pack([len(encoding.ids) for encoding in encodings])
        ]
    return padded


def _padded(encodings: Sequence[Encoding], pad_token_id: int) -> tuple[Ids, Ids]:
    longest = max(len(encoding.ids) for encoding in encodings)
    ids = np.full((len(encodings), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    return ids, mask


def _compute(engine: Engine, batches: Sequence[tuple[Ids, Ids]], streams: int) -> None:
    """All batches, on as many threads as scoring has."""
    waiting: queue.SimpleQueue[tuple[Ids, Ids]] = queue.SimpleQueue()
    for batch in batches:
        waiting.put(batch)

    def stream() -> None:
        while True:
            try:
                ids, mask = waiting.get_nowait()
            except queue.Empty:
                return
            engine.infer(ids, mask)

    with ThreadPoolExecutor(streams) as threads:
        for future in [threads.submit(stream) for _ in range(streams)]:
            future.result()
