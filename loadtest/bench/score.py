"""Measures how much of the engine's own speed is left when a file is scored."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import orjson
import typer

from core.command_output import JsonOption
from core.settings import get_settings
from core.types import Version
from datafiles.chunks import CHUNK_ROWS
from datafiles.formats import Format, Input
from loadtest.bench.engines import Ids, infer_all
from loadtest.bench.record import RecordOption, write_figures
from loadtest.table import console
from loadtest.traffic import Kind, texts_of
from runners.classifier import Classifier
from runners.packing import pack
from scoring.job import Job, score_file
from scoring.scorer import Scorer, load_models, streams_of

VERSION: Version = "v1"


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
    record: RecordOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compute the same batches with the engine alone and by scoring a file, by turns."""
    settings = get_settings()
    streams = streams_of(settings)
    models = load_models([VERSION], settings)
    classifier = cast("Classifier", models[VERSION].model)
    engine = classifier.engine
    texts = list(itertools.islice(texts_of(Kind.sentences, seed=1), rows))
    batches = _batches(classifier, texts)
    alone: list[Cost] = []
    scored: dict[Format, list[Cost]] = {format_: [] for format_ in Format}
    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        source = Path(folder) / "in.jsonl"
        source.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
        for turn in range(rounds):
            for format_, costs in scored.items():
                out = Path(folder) / f"{turn}.{format_}"
                job = Job(Input(source, Format.jsonl), out, format_, "text", [VERSION])
                alone.append(_cost(partial(infer_all, engine, batches, streams), rows))
                with Scorer(models, streams=streams) as scorer:
                    score = partial(score_file, scorer, job, lambda *_: None)
                    costs.append(_cost(score, rows))
            console.print(f"turn {turn + 1} of {rounds}")
    usual = Cost.median(alone)
    console.print(f"{engine.name}, {streams} streams, alone: {usual}")
    for format_, costs in scored.items():
        cost = Cost.median(costs)
        console.print(
            f"jsonl to {format_.value}: {cost}; {cost.rate / usual.rate:.0%} of the rate, "
            f"{cost.cpu_ms / usual.cpu_ms:.0%} of the CPU"
        )
    figures = {
        "engine": engine.name,
        "streams": streams,
        "alone": [cost._asdict() for cost in alone],
        "scored": {name: [cost._asdict() for cost in costs] for name, costs in scored.items()},
    }
    write_figures(record, figures)


def _cost(work: Callable[[], object], rows: int) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    rate = rows / (time.perf_counter() - started)
    return Cost(rate, 1_000 * (time.process_time() - cpu) / rows)


def _batches(classifier: Classifier, texts: Sequence[str]) -> list[tuple[Ids, Ids]]:
    """Those that scoring makes of the same texts, padded already."""
    padded = []
    for start in range(0, len(texts), CHUNK_ROWS):
        encodings = classifier.encode(texts[start : start + CHUNK_ROWS])
        padded += [
            classifier.pad([encodings[row] for row in rows])
            for rows in pack([len(encoding.ids) for encoding in encodings])
        ]
    return padded
