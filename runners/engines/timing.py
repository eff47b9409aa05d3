"""Times the engines of a model on this CPU; as a program, in a process of its own.

There a library that crashes or keeps its memory does no harm to the runner.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.signals import end_with_parent
from core.types import EngineName
from runners.classifier import Classifier
from runners.cpu import take_idle_time, usable_cpus
from runners.engines.choice import EngineUnavailable, load_engine
from runners.engines.speeds import SHAPES
from runners.golden_set import TEXTS, check, read_golden_set
from runners.model_store import SavedModel

# The engines take turns so often, because others may use the same caches and memory for a while.
_ROUNDS = 2
# Of each core, for each shape; four times that is the longest wait for it on a busy machine.
_CPU_SECONDS = 0.1
_WALL_SECONDS = 4 * _CPU_SECONDS
# No engine is begun after this. It takes some seconds, and ten times that on a busy machine.
_LAST_BEGIN_SECONDS = 60.0
# Of the golden set. Many of its texts are hard to judge, and an engine may compute such ones twice:
# of usual texts 3 %, and none of the first eight here.
_SENTENCES = TEXTS[:8]
_BATCHES = 16


def time_engine(classifier: Classifier, streams: int) -> list[float]:
    """Texts a second for each of `SHAPES`, on as many cores as there are `streams`.

    They are those of a second of CPU, times the streams, so that other processes on the same cores
    make the figures no lower.
    """
    return [_texts_per_second(classifier, rows, tokens, streams) for rows, tokens in SHAPES]


def _texts_per_second(classifier: Classifier, rows: int, tokens: int, streams: int) -> float:
    batches = _batches(classifier, rows, min(tokens, classifier.max_tokens))
    mask = np.ones_like(batches[0])
    classifier.engine.infer(batches[0], mask)  # the first of a shape may compile something
    began, cpu_began = time.monotonic(), time.process_time()

    def stream(_number: int) -> int:
        for computed in itertools.count(1):
            classifier.engine.infer(batches[computed % len(batches)], mask)
            if (
                time.process_time() - cpu_began >= _CPU_SECONDS * streams
                or time.monotonic() - began >= _WALL_SECONDS
            ):
                break
        return computed

    with ThreadPoolExecutor(streams) as threads:
        computed = sum(threads.map(stream, range(streams)))
    return computed * rows / (time.process_time() - cpu_began) * streams


def _batches(classifier: Classifier, rows: int, tokens: int) -> list[NDArray[np.int64]]:
    """Batches of one shape, each row a sentence, cut or repeated to its length."""
    sentences = [encoding.ids for encoding in classifier.encode(_SENTENCES)]
    chosen = np.random.default_rng(0).integers(len(sentences), size=(_BATCHES, rows))
    return [
        np.array([np.resize(sentences[number], tokens) for number in batch], dtype=np.int64)
        for batch in chosen
    ]


def time_engines(
    model: SavedModel, names: Sequence[EngineName]
) -> Iterator[tuple[EngineName, list[float], str | None]]:
    """Time engines of a model by turns, each loaded alone: name, figures, and why it has none.

    An engine without figures cannot be loaded, or does not answer the golden set as it should.
    """
    streams = usable_cpus()
    golden_set = read_golden_set(model.folder)
    timed = list(names)
    for number in range(_ROUNDS):
        for name in list(timed):
            try:
                classifier = Classifier(model, load_engine(model, name, streams=streams))
                problem = check(classifier.infer, golden_set) if number == 0 else None
            except EngineUnavailable as error:
                problem = str(error)
            if problem is None:
                yield name, time_engine(classifier, streams), None
                del classifier
            else:
                timed.remove(name)
                yield name, [], problem


def main() -> None:
    """Time the engines that the arguments name after a model; print each as a line of JSON."""
    end_with_parent()
    # If the runner has ended before, the first line ends this process without a traceback.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    take_idle_time()  # measured is CPU time, which does not depend on who waits
    described, *names = sys.argv[1:]
    # The only type that msgspec does not know is that of its folder.
    model = msgspec.json.decode(
        described, type=SavedModel, dec_hook=lambda _path, value: Path(value)
    )
    began = time.monotonic()
    for timed in time_engines(model, cast("list[EngineName]", names)):
        sys.stdout.write(json.dumps(timed) + "\n")
        sys.stdout.flush()
        if time.monotonic() - began > _LAST_BEGIN_SECONDS:
            break


if __name__ == "__main__":
    main()
