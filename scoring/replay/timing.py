"""The latency and the CPU time of two models on the same texts, by turns, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple

from core.types import LongText
from scoring.replay.observations import SLOT
from scoring.scorer import LoadedModel, Scorer

MAX_TEXTS = 200
MAX_SECONDS = 60.0
_SECONDS_PER_HOUR = 3_600
_MILLION = 1_000_000


class TimedText(NamedTuple):
    text: str
    long_text: LongText


@dataclass(frozen=True, slots=True)
class Timing:
    """Texts computed one at a time, without a cache; `core_ms` is CPU time of all threads."""

    texts: int
    p50_ms: float
    p95_ms: float
    core_ms: float

    def cost_per_million(self, price_per_core_hour: float) -> float:
        """What the CPU time of a million computed predictions costs."""
        return self.core_ms / 1_000 * _MILLION / _SECONDS_PER_HOUR * price_per_core_hour


def time_by_turns(
    models: Mapping[str, LoadedModel],
    texts: Sequence[TimedText],
    *,
    max_seconds: float = MAX_SECONDS,
    progress: Callable[[float], object] = lambda _share: None,
) -> dict[str, Timing]:
    """Time each model on each text; who comes first changes with each text.

    It ends after `max_seconds`, with as many texts as were computed, at least one.
    """
    wall: dict[str, list[float]] = {name: [] for name in models}
    cores = dict.fromkeys(models, 0.0)
    started = time.perf_counter()
    with ExitStack() as stack:
        scorers = {
            (name, long_text): stack.enter_context(
                Scorer({SLOT: model}, streams=1, long_text=long_text)
            )
            for name, model in models.items()
            for long_text in {timed.long_text for timed in texts}
        }
        for number, timed in enumerate(texts):
            for name in list(models)[:: -1 if number % 2 else 1]:
                before, cpu_before = time.perf_counter(), time.process_time()
                scorers[name, timed.long_text].score([timed.text])
                wall[name].append(time.perf_counter() - before)
                cores[name] += time.process_time() - cpu_before
            progress((number + 1) / len(texts))
            if time.perf_counter() - started > max_seconds:
                break
    return {
        name: Timing(
            texts=len(seconds),
            p50_ms=1_000 * median(seconds),
            p95_ms=1_000 * _p95(seconds),
            core_ms=1_000 * cores[name] / len(seconds),
        )
        for name, seconds in wall.items()
    }


def _p95(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
