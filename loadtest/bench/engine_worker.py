"""One engine in a process of its own: JSON questions on stdin, what was measured on stdout.

A process for each engine keeps their thread pools apart. While one is measured the other waits for
its next request, and so costs nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.types import EngineName
from loadtest.traffic import Kind, texts_of
from runners.model_store import SavedModel, find_model

REFERENCE = "reference"
_MAX_TOKENS = 512

Ids = NDArray[np.int64]
Infer = Callable[[Ids, Ids], object]
Result = TypeVar("Result")


@dataclass(frozen=True)
class ShapeQuestion:
    """Texts/s of batches of one shape, and the latency of one batch alone."""

    rows: int
    tokens: int
    seconds: float
    first: bool


@dataclass(frozen=True)
class TextsQuestion:
    """Texts/s over `sets` sets of 100 distinct texts of mixed length, in batches of `rows`."""

    rows: int
    sets: int
    seed: int


Question = ShapeQuestion | TextsQuestion


def ask(question: Question) -> str:
    """The line that asks it."""
    return json.dumps({"question": type(question).__name__, **asdict(question)})


def main() -> None:
    tag, engine, cores = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = find_model(tag)
    infer, streams = _load(model, engine, cores)
    print(json.dumps({"ready": engine}), file=answers, flush=True)
    for line in sys.stdin:
        fields: dict[str, Any] = json.loads(line)
        name = fields.pop("question")
        if name == ShapeQuestion.__name__:
            answer = _shape(infer, streams, ShapeQuestion(**fields))
        else:
            answer = _texts(infer, streams, model, TextsQuestion(**fields))
        print(json.dumps(answer), file=answers, flush=True)


def _load(model: SavedModel, engine: str, cores: int) -> tuple[Infer, int]:
    """The engine, and how many batches it computes at once: together they use `cores` cores."""
    if engine == REFERENCE:
        return _reference(model, cores), 1
    from runners.engines.choice import load_engine

    return load_engine(model, cast("EngineName", engine), streams=cores).infer, cores


def _reference(model: SavedModel, cores: int) -> Infer:
    """transformers in float32: one batch at a time on all cores."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(cores)
    network = AutoModelForSequenceClassification.from_pretrained(
        model.folder, local_files_only=True, dtype=torch.float32
    ).eval()

    def infer(input_ids: Ids, attention_mask: Ids) -> object:
        with torch.inference_mode():
            return network(
                input_ids=torch.from_numpy(input_ids),
                attention_mask=torch.from_numpy(attention_mask),
            ).logits.numpy()

    return infer


def _shape(infer: Infer, streams: int, question: ShapeQuestion) -> dict[str, float]:
    random = np.random.default_rng(0)
    ids = random.integers(1_000, 30_000, size=(question.rows, question.tokens))
    mask = np.ones_like(ids)
    if question.first:
        infer(ids, mask)  # the first of a shape may compile something
    alone = _rows_per_second(infer, ids, mask, 1, question.seconds)
    together = (
        _rows_per_second(infer, ids, mask, streams, question.seconds) if streams > 1 else alone
    )
    return {"texts_per_second": together, "batch_alone_ms": 1_000 * question.rows / alone}


def _rows_per_second(infer: Infer, ids: Ids, mask: Ids, streams: int, seconds: float) -> float:
    """Rows computed by `streams` threads, each going on until the seconds have passed."""

    def stream() -> float:
        batches, started = 0, time.perf_counter()
        while not batches or time.perf_counter() - started < seconds:
            infer(ids, mask)
            batches += 1
        return batches * len(ids) / (time.perf_counter() - started)

    return sum(_in_threads(stream, streams))


def _texts(
    infer: Infer, streams: int, model: SavedModel, question: TextsQuestion
) -> dict[str, float]:
    """Every set is sorted by length, as a batch request can be; the streams never run dry."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.enable_truncation(min(model.max_tokens, _MAX_TOKENS))
    tokenizer.no_padding()
    texts = texts_of(Kind.mixed_length, seed=question.seed)
    waiting: queue.SimpleQueue[tuple[Ids, Ids]] = queue.SimpleQueue()
    for _ in range(question.sets):
        encoded = tokenizer.encode_batch(list(itertools.islice(texts, 100)))
        by_length = sorted((encoding.ids for encoding in encoded), key=len, reverse=True)
        for start in range(0, len(by_length), question.rows):
            waiting.put(_padded(by_length[start : start + question.rows], model.pad_token_id))

    def stream() -> int:
        rows = 0
        while True:
            try:
                ids, mask = waiting.get_nowait()
            except queue.Empty:
                return rows
            infer(ids, mask)
            rows += len(ids)

    infer(*waiting.get())
    started = time.perf_counter()
    rows = sum(_in_threads(stream, streams))
    return {"texts_per_second": rows / (time.perf_counter() - started)}


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Ids, Ids]:
    ids = np.full((len(rows), max(map(len, rows))), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def _in_threads(work: Callable[[], Result], count: int) -> list[Result]:
    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(work) for _ in range(count)]]


if __name__ == "__main__":
    main()
