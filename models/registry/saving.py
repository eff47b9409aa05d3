"""Saves a checkpoint with a progress bar: builds its engines, compares them, passes its gates."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from core.types import EngineName, Version
from models.export.gate import GateReport
from models.registry.sources import Fetched, fetch
from models.starter.card import adapter_digest, failed_engines
from models.texts import packaged_texts, read_texts
from runners.engines.choice import REFERENCE, runnable_engines
from runners.model_store import SavedModel

if TYPE_CHECKING:
    from models.checkpoint import AcceptanceGate

console = Console()

COLUMNS = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


class Source(StrEnum):
    starter = "starter"
    hub = "hub"


class Engines(StrEnum):
    fastest = "fastest"
    all = "all"
    torch = "torch"


ENGINES_HELP = (
    "fastest: the first that passes the gate, of those that this machine runs; all: every engine, "
    "for an image that will run elsewhere; torch: only the reference, in seconds"
)
TEXTS_HELP = (
    "at least 2,300 JSON lines {text, label} of your own domain, to compare engines on instead of "
    "the packaged English texts"
)


def save_version(
    version: Version,
    source: Source,
    location: str = "",
    *,
    engines: Engines = Engines.fastest,
    texts: Path | None = None,
) -> None:
    """Save one version and print its tag and engines.

    Raises:
        InvalidCheckpoint: it cannot be served, or cannot be fetched.
        InvalidTexts: the file of texts cannot be used.
    """
    if source is Source.starter:
        fetch_into, failed = partial(_build_starter, version), failed_engines(version)
    else:
        fetch_into, failed = partial(fetch, location), ()
    save(version, str(source), fetch_into, engines=engines, texts=texts, failed=failed)


def _build_starter(version: Version, folder: Path) -> Fetched:
    # Imported here: transformers takes seconds.
    from models.starter.build import build_starter

    facts = build_starter(version, folder)
    digest = adapter_digest(version)
    return Fetched(folder, {"source": "starter", "adapter_sha256": digest, **facts})


def save(
    version: Version,
    origin: str,
    fetch_into: Callable[[Path], Fetched],
    *,
    engines: Engines,
    texts: Path | None,
    acceptance_gate: AcceptanceGate | None = None,
    failed: Collection[EngineName] = (),
) -> SavedModel:
    """Save a checkpoint as `version` and print its tag and engines; the bar shows its `origin`.

    `fetch_into` gets an empty folder, which is removed when the checkpoint is saved.
    Engines that have `failed` with these weights before are tried only with `Engines.all`.

    Raises:
        InvalidCheckpoint: it cannot be served or fetched, or `acceptance_gate` rejected it.
        InvalidTexts: the file of texts cannot be used.
    """
    # Imported here: torch and transformers take seconds.
    from models.checkpoint import save_checkpoint
    from models.export.build import BuildProgress, EnginePlan

    started = time.perf_counter()
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(f"{version}: preparing ({origin})", total=None)
        plan = None
        if names := engines_to_try(engines, failed):
            plan = EnginePlan(
                names,
                read_texts(texts) if texts else packaged_texts(),
                first_only=engines is Engines.fastest,
                progress=BuildProgress(
                    on_step=lambda name: progress.update(task, description=f"{version}: {name}"),
                    on_texts=lambda count: progress.advance(task, count),
                ),
            )
            compared = 1 if plan.first_only else len(names)
            progress.update(task, total=len(plan.texts.gate) * (1 + compared))
        with tempfile.TemporaryDirectory() as temporary:
            fetched = fetch_into(Path(temporary))
            model = save_checkpoint(fetched.folder, version, fetched.facts, plan, acceptance_gate)
    seconds = time.perf_counter() - started
    console.print(f"{version}: saved as [bold]{model.tag}[/] in {seconds:.1f} s")
    print_engines(bentoml.models.get(model.tag).info.metadata)
    return model


def engines_to_try(engines: Engines, failed: Collection[EngineName]) -> tuple[EngineName, ...]:
    """The engines to build beside torch, the fastest first."""
    if engines is Engines.torch:
        return ()
    skipped = {REFERENCE, *(failed if engines is Engines.fastest else ())}
    return tuple(name for name in runnable_engines() if name not in skipped)


def print_engines(metadata: Mapping[str, Any]) -> None:
    """Print the gate's figures of every engine."""
    for name, report in metadata["engines"].items():
        if report:
            console.print(f"    {name:<17} {GateReport(**report)}", soft_wrap=True)
