"""Puts a checkpoint into the model store: its engines built and compared, its gates passed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any

import bentoml
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from core.types import EngineName, Version
from models.checkpoint import Judge, no_judge, save_checkpoint
from models.export.build import EnginePlan, EngineWatch
from models.registry.sources import Fetched
from models.texts import packaged_texts, read_texts
from runners.engines.choice import REFERENCE, runnable_engines
from runners.model_store import SavedModel

console = Console()

COLUMNS = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


class Engines(StrEnum):
    fastest = "fastest"
    all = "all"
    torch = "torch"


ENGINES_HELP = (
    "fastest: the first to pass the gate, of those that this machine can run; all: every one, for "
    "an image that will run elsewhere; torch: only the reference, in seconds"
)
TEXTS_HELP = (
    "JSON lines {text, label} of your own domain, to judge engines by instead of the packaged "
    "English ones; at least 2,300"
)


def save(
    version: Version,
    what: str,
    checkpoint: AbstractContextManager[Fetched],
    *,
    engines: Engines,
    texts: Path | None,
    judge: Judge = no_judge,
    failed: Collection[EngineName] = (),
) -> SavedModel:
    """Save it as `version` and say so; `what` tells whoever waits where it comes from.

    Engines that have `failed` before, for these weights, are tried only where all are asked for.

    Raises:
        InvalidCheckpoint: it cannot be served or fetched, or `judge` refused it.
        InvalidTexts: the file of texts cannot be used.
    """
    started = time.perf_counter()
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(f"{version}: preparing ({what})", total=None)
        plan = None
        if wanted := engines_to_try(engines, failed):
            plan = EnginePlan(
                wanted,
                read_texts(texts) if texts else packaged_texts(),
                first_only=engines is Engines.fastest,
                watch=EngineWatch(
                    step=lambda name: progress.update(task, description=f"{version}: {name}"),
                    texts_done=lambda count: progress.advance(task, count),
                ),
            )
            compared = 1 if plan.first_only else len(wanted)
            progress.update(task, total=len(plan.texts.gate) * (1 + compared))
        with checkpoint as fetched:
            model = save_checkpoint(fetched.folder, version, fetched.facts, plan, judge)
    seconds = time.perf_counter() - started
    console.print(f"{version}: saved as [bold]{model.tag}[/] in {seconds:.1f} s")
    print_engines(bentoml.models.get(model.tag).info.metadata)
    return model


def engines_to_try(engines: Engines, failed: Collection[EngineName]) -> tuple[EngineName, ...]:
    if engines is Engines.torch:
        return ()
    passed_over = {REFERENCE, *(failed if engines is Engines.fastest else ())}
    return tuple(name for name in runnable_engines() if name not in passed_over)


def print_engines(metadata: Mapping[str, Any]) -> None:
    for name, report in metadata["engines"].items():
        if report:
            console.print(
                f"    {name:<17} agreement {report['agreement']:.2%}, mean |dp| "
                f"{report['mean_difference']:.4f}, accuracy {report['accuracy']:.2%} "
                f"(torch {report['reference_accuracy']:.2%}), {report['texts']:,} texts",
                soft_wrap=True,
            )
