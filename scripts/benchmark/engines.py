"""Engines against torch in float32: each in its own process, both on all cores, taking turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.cpu import usable_cpus
from runners.model_store import find_model
from scripts.benchmark.engine_worker import REFERENCE, Question, ShapeQuestion, ask
from scripts.benchmark.plan import Plan
from scripts.benchmark.servers import ROOT, end
from settings import get_settings

_USUAL_ENGINES = 4
_SHAPE_SECONDS = 5.0

Step = Callable[[str], None]  # says what is next


class EngineFailed(RuntimeError):
    """An engine's process ended; the message is the end of what it said."""


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
def worker(tag: str, engine: str, *, bentoml_home: Path | None = None) -> Iterator[Worker]:
    """Load an engine in a process of its own.

    Raises:
        EngineFailed: it cannot be loaded.
    """
    home = {"BENTOML_HOME": str(bentoml_home)} if bentoml_home else {}
    command = [
        sys.executable,
        "-m",
        "scripts.benchmark.engine_worker",
        tag,
        engine,
        str(usable_cpus()),
    ]
    with tempfile.NamedTemporaryFile(prefix="bench-engine-") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | home,
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


@dataclass(frozen=True)
class _Model:
    tag: str
    engines: tuple[str, ...]
    bentoml_home: Path | None  # None: this user's


def measure_engines(plan: Plan, step: Step) -> Iterator[dict[str, Any]]:
    """A row for each size, engine, shape and round, with the reference's figures beside it."""
    for size in plan.sizes:
        step(f"engines: preparing the {size} size")
        with (
            _model_of(size) as model,
            worker(model.tag, REFERENCE, bentoml_home=model.bentoml_home) as reference,
        ):
            for engine in model.engines:
                step(f"engines: {size} size, {engine}")
                with worker(model.tag, engine, bentoml_home=model.bentoml_home) as measured:
                    for row in _take_turns(plan, reference, measured):
                        yield {"part": "engines", "size": size, "engine": engine, **row}


def engine_steps(plan: Plan) -> int:
    """About: how many engines a saved model has is known when it is found."""
    return len(plan.sizes) * (1 + _USUAL_ENGINES)


def _take_turns(plan: Plan, reference: Worker, measured: Worker) -> Iterator[dict[str, Any]]:
    for texts, tokens in plan.shapes:
        started = time.perf_counter()
        for number in range(plan.engine_rounds):
            # A large batch of the base size takes seconds: one round of it has to do.
            if number and time.perf_counter() - started > _SHAPE_SECONDS:
                break
            asked = ShapeQuestion(texts, tokens, plan.engine_seconds, first=not number)
            theirs, ours = reference.answer(asked), measured.answer(asked)
            yield {
                "texts": texts,
                "tokens": tokens,
                "round": number,
                **ours,
                **{f"reference_{name}": value for name, value in theirs.items()},
            }


@contextmanager
def _model_of(size: str) -> Iterator[_Model]:
    """The served model, or one of DistilBERT-base's size with random weights."""
    from runners.engine_choice import saved_engines

    served = find_model(get_settings().model_tag("v1"))
    if size == "starter":
        yield _Model(served.tag, saved_engines(served), None)
        return
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        home, checkpoint = Path(folder) / "home", Path(folder) / "checkpoint"
        home.mkdir()
        checkpoint.mkdir()
        for file in served.folder.glob("tokenizer*.json"):
            shutil.copy(file, checkpoint)
        said = subprocess.run(
            [sys.executable, "-m", "scripts.benchmark.base_size", str(checkpoint)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(home)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        shutil.rmtree(checkpoint)
        facts = json.loads(said.splitlines()[-1])
        yield _Model(facts["tag"], tuple(facts["engines"]), home)
