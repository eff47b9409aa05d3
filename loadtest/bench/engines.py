"""Engines against torch in float32: each in its own process, both on all cores, taking turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from core.paths import ROOT
from loadtest.bench.engine_worker import REFERENCE, Question, ShapeQuestion, ask
from loadtest.bench.models import bentoml_home
from loadtest.bench.plan import Plan
from loadtest.bench.servers import end
from runners.cpu import usable_cpus
from runners.engines.choice import saved_engines
from runners.model_store import SavedModel

_USUAL_ENGINES = 4
_SHAPE_SECONDS = 5.0

Step = Callable[[str], None]  # says what is next


class EngineFailed(RuntimeError):
    """An engine's process ended; the message is the end of its output."""


class Worker:
    """The process of one engine, which answers questions."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process = process
        self._errors = errors

    def answer(self, question: Question) -> dict[str, float]:
        """Raises EngineFailed."""
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # it has ended, as reading finds out
            print(ask(question), file=self._process.stdin, flush=True)
        answer: dict[str, float] = self.read()
        return answer

    def read(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed(self._errors.read_text(errors="replace")[-2000:])
        return json.loads(line)


@contextmanager
def worker(model: SavedModel, engine: str) -> Iterator[Worker]:
    """Load an engine in a process of its own.

    Raises:
        EngineFailed: it cannot be loaded.
    """
    command = [
        sys.executable,
        "-m",
        "loadtest.bench.engine_worker",
        model.tag,
        engine,
        str(usable_cpus()),
    ]
    with tempfile.NamedTemporaryFile(prefix="bench-engine-") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(bentoml_home(model))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            made = Worker(process, Path(errors.name))
            made.read()
            yield made
        finally:
            end(process)
            process.communicate()


def measure_engines(
    plan: Plan, models: Mapping[str, SavedModel], step: Step
) -> Iterator[dict[str, Any]]:
    """A row for each size, engine, shape and round, with the reference's figures beside it."""
    for size, model in models.items():
        with worker(model, REFERENCE) as reference:
            for engine in saved_engines(model):
                step(f"engines: {size} size, {engine}")
                with worker(model, engine) as measured:
                    for row in _take_turns(plan, reference, measured):
                        yield {"part": "engines", "size": size, "engine": engine, **row}


def engine_steps(plan: Plan) -> int:
    """About: how many engines a saved model has is known when it is found."""
    return len(plan.sizes) * _USUAL_ENGINES


def _take_turns(plan: Plan, reference: Worker, measured: Worker) -> Iterator[dict[str, Any]]:
    for texts, tokens in plan.shapes:
        started = time.perf_counter()
        for number in range(plan.engine_rounds):
            # A large batch of the base size takes seconds, so it gets one round.
            if number and time.perf_counter() - started > _SHAPE_SECONDS:
                break
            question = ShapeQuestion(texts, tokens, plan.engine_seconds, first=not number)
            theirs, ours = reference.answer(question), measured.answer(question)
            yield {
                "texts": texts,
                "tokens": tokens,
                "round": number,
                **ours,
                **{f"reference_{name}": value for name, value in theirs.items()},
            }
