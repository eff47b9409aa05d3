"""Times the engines of a model on this CPU; as a program, in a process of its own.

There a library that crashes or keeps its memory does no harm to the runner.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from core.types import EngineName
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import EngineUnavailable, load_engine
from runners.engines.speeds import SHAPES
from runners.golden_set import TEXTS, check, read_golden_set
from runners.model_store import SavedModel, find_model

# Of each core, for each shape; twice that is the longest wait for it on a busy machine.
_CPU_SECONDS = 0.15
_WALL_SECONDS = 4 * _CPU_SECONDS
# No engine is begun after this.
_LAST_BEGIN_SECONDS = 8.0
# Below the priority of inference: measured is CPU time, which does not depend on who waits.
_NICENESS = 19


def time_engine(classifier: Classifier, streams: int) -> list[float]:
    """Texts a second for each of `SHAPES`, on as many cores as there are `streams`.

    They are those of a second of CPU, times the streams, so that other processes on the same cores
    make the figures no lower.
    """
    return [_texts_per_second(classifier, rows, tokens, streams) for rows, tokens in SHAPES]


def _texts_per_second(classifier: Classifier, rows: int, tokens: int, streams: int) -> float:
    # Pieces of sentences, because an engine may spend more on texts that are hard to judge.
    [sentences] = classifier.encode([" ".join(TEXTS[:-1])])
    starts = np.random.default_rng(0).integers(len(sentences.ids), size=(rows, 1))
    ids = np.take(np.array(sentences.ids, dtype=np.int64), starts + np.arange(tokens), mode="wrap")
    mask = np.ones_like(ids)
    classifier.engine.infer(ids, mask)  # the first of a shape may compile something
    began, cpu_began = time.monotonic(), time.process_time()

    def stream(_number: int) -> int:
        batches = 0
        while not batches or (
            time.process_time() - cpu_began < _CPU_SECONDS * streams
            and time.monotonic() - began < _WALL_SECONDS
        ):
            classifier.engine.infer(ids, mask)
            batches += 1
        return batches

    with ThreadPoolExecutor(streams) as threads:
        batches = sum(threads.map(stream, range(streams)))
    return batches * rows / (time.process_time() - cpu_began) * streams


def time_engines(
    model: SavedModel, names: Sequence[EngineName]
) -> Iterator[tuple[EngineName, list[float], str | None]]:
    """Time engines of a model, each loaded alone: its name, figures, and why it has none.

    An engine without figures cannot be loaded, or does not answer the golden set as it should.
    """
    streams = usable_cpus()
    golden_set = read_golden_set(model.folder)
    for name in names:
        try:
            classifier = Classifier(model, load_engine(model, name, streams=streams))
        except EngineUnavailable as error:
            yield name, [], str(error)
            continue
        problem = check(classifier.infer, golden_set)
        yield name, time_engine(classifier, streams) if problem is None else [], problem


def main() -> None:
    """Time the engines that the arguments name after a tag; print each as a line of JSON."""
    os.nice(_NICENESS)
    tag, *names = sys.argv[1:]
    model = find_model(tag)
    began = time.monotonic()
    for name in cast("list[EngineName]", names):
        if time.monotonic() - began > _LAST_BEGIN_SECONDS:
            break
        for line in time_engines(model, [name]):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
