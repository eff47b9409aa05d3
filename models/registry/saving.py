"""Saves models with a progress bar: makes their engines, judges them, passes their gates."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from core.temporary_folders import scratch_folder
from core.types import VERSIONS, Version
from models.architectures import USUAL_WINDOW
from models.checkpoint import (
    WRITTEN_FACTS,
    AcceptanceGate,
    MakeEngines,
    prepare,
    save_prepared,
)
from models.configuration import check_files
from models.export.build import ENGINES_WITH_FILES, BuildProgress, EnginePlan, build_engines
from models.export.gate import GateReport
from models.files import CHECKPOINT_FILES, read_json_object
from models.labels import NO_OPTIONS, LabelOptions, outputs_of
from models.registry.held_out import held_out_sentence
from models.registry.sources import Fetched, fetch, is_local
from models.starter.build import build_starter
from models.starter.card import StarterError, adapter_digest
from models.starter.reproduction import recorded_gates, reproduce_engines
from models.texts import packaged_texts, read_texts
from models.torch_packages import ensure_torch_packages
from runners.classifier import Classifier
from runners.engines.choice import ONNX_FILE, REFERENCE, runnable_engines
from runners.engines.weights import CONFIG_FILE, is_distilbert
from runners.golden_set import check, read_golden_set
from runners.model_store import InvalidCheckpoint, SavedModel, model_name
from runners.panics import TokenizerFailed, panics_as_errors

console = Console(emoji=False)

COLUMNS = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


class Source(StrEnum):
    starter = "starter"
    hub = "hub"


class Engines(StrEnum):
    fastest = "fastest"
    all = "all"
    reference = "reference"


ENGINES_HELP = (
    "fastest: those that pass the gate, without the files of slower ones; all: every engine, for "
    "an image that will run elsewhere; reference: only the float32 one, in seconds"
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
    timed: bool = True,
) -> SavedModel:
    """Save one version and print its tag and engines; `timed` ones are chosen by their speed.

    Raises:
        InvalidCheckpoint: it cannot be served, or cannot be fetched.
        InvalidTexts: the file of texts cannot be used.
        StarterError: a starter model cannot be made.
    """
    if source is Source.starter:
        return save_starter(version, engines=engines, texts=texts, timed=timed)
    return save_checkpoint(
        version, location, partial(fetch, location), engines=engines, texts=texts
    )


def save_starter(
    version: Version,
    *,
    engines: Engines = Engines.fastest,
    texts: Path | None = None,
    timed: bool = True,
) -> SavedModel:
    """Make and save a starter model, without torch, and print its tag and engines.

    Its engines passed the gate when the adapter was committed: here they have to reproduce their
    answers. With `texts` they pass the gate again.

    Raises:
        InvalidCheckpoint: this CPU does not reproduce the float32 engine's answers.
        InvalidTexts: the file of texts cannot be used.
        StarterError: it cannot be made.
    """
    with _saving(version, "starter") as progress, scratch_folder() as folder:
        facts = {
            "source": str(Source.starter),
            "adapter_sha256": adapter_digest(version),
            **build_starter(version, folder),
        }
        recorded = recorded_gates(version)
        make_engines: MakeEngines | None
        if engines is Engines.reference:
            make_engines = None
        elif texts is not None or recorded is None:
            make_engines = _gate(engines, texts, progress)
        else:
            progress.expect(len(recorded.positive), engines)
            make_engines = partial(
                reproduce_engines,
                recorded=recorded,
                first_only=engines is Engines.fastest,
                progress=progress.steps,
            )
        prepared = prepare(folder, version)
        return progress.done(save_prepared(prepared, facts, make_engines, timed=timed))


def save_checkpoint(
    version: Version,
    origin: str,
    fetch_into: Callable[[Path], Fetched],
    *,
    engines: Engines,
    texts: Path | None,
    acceptance_gate: AcceptanceGate | None = None,
    options: LabelOptions = NO_OPTIONS,
    max_tokens: int | None = None,
) -> SavedModel:
    """Save a checkpoint as `version` and print its tag and engines; the bar shows its `origin`.

    `fetch_into` gets an empty folder, which is removed when the checkpoint is saved.

    Raises:
        InvalidCheckpoint: it cannot be served or fetched, or `acceptance_gate` rejected it.
        InvalidTexts: the file of texts cannot be used.
        PackagesUnavailable: torch or transformers is absent and cannot be installed.
    """
    with scratch_folder() as temporary:
        fetched = fetch_into(temporary) if is_local(origin) else None
        if fetched is not None:
            with _naming(origin):
                check_files(fetched.folder, options)
        # torch and transformers take long to install and seconds to import, and only a checkpoint
        # needs them.
        ensure_torch_packages()
        from models.importing import import_checkpoint

        with _saving(version, origin) as progress:
            make_engines = None if engines is Engines.reference else _gate(engines, texts, progress)
            fetched = fetched or fetch_into(temporary)
            with _naming(origin):
                model = import_checkpoint(
                    fetched.folder, version, fetched.facts, make_engines, acceptance_gate,
                    options=options, max_tokens=max_tokens, timed=True,
                )  # fmt: skip
            return progress.done(model)


@contextmanager
def _naming(origin: str) -> Iterator[None]:
    try:
        with panics_as_errors():
            yield
    except (InvalidCheckpoint, TokenizerFailed) as error:
        raise InvalidCheckpoint(f"{origin} cannot be imported: {error}") from error


def refresh(tag: str, *, texts: Path | None = None) -> SavedModel:
    """Make the engines of a model that an older release saved, and save it again under its tag.

    Raises:
        bentoml.exceptions.NotFound: it is not in the store.
        InvalidCheckpoint: its weights are not in the store, or do not answer as they did.
        InvalidTexts: the file of texts cannot be used.
    """
    stored = bentoml.models.get(tag)
    version = next(version for version in VERSIONS if model_name(version) == stored.tag.name)
    metadata: dict[str, Any] = stored.info.metadata
    facts = {name: value for name, value in metadata.items() if name not in WRITTEN_FACTS}
    with _saving(version, str(stored.tag)) as progress, scratch_folder() as copy:
        kept: tuple[str, ...] = CHECKPOINT_FILES
        if not is_distilbert(Path(stored.path)):
            # Only an import exports it, and it refers to the weights.
            kept = (*kept, ONNX_FILE)
        for name in kept:
            if (Path(stored.path) / name).is_file():
                shutil.copy(Path(stored.path) / name, copy)
        make_engines: MakeEngines | None = None
        try:
            make_engines = _gate(Engines.fastest, texts, progress)
        except StarterError as error:
            console.print(f"{tag} gets the float32 engine only, without texts to judge by: {error}")
        same = partial(_check_golden_set, Path(stored.path))
        prepared = prepare(copy, version, int(metadata["max_tokens"]))
        # The settings may name the latest, which this is not to become.
        return progress.done(save_prepared(prepared, facts, make_engines, same, as_latest=False))


def _check_golden_set(folder: Path, reference: Classifier) -> Mapping[str, Any]:
    """Compare the reference with the golden set in a folder; adds nothing to the metadata."""
    problem = check(reference.infer, read_golden_set(folder))
    if problem is not None:
        raise InvalidCheckpoint(f"{folder.name} cannot be used any more: {problem}")
    return {}


class _Bar:
    """The progress bar of one model."""

    def __init__(self, progress: Progress, version: Version, origin: str) -> None:
        task = progress.add_task(f"{version}: preparing ({origin})", total=None)
        self._version = version
        self._started = time.perf_counter()
        self._set_total: Callable[[int], None] = lambda texts: progress.update(task, total=texts)
        self.steps = BuildProgress(
            on_step=lambda name: progress.update(task, description=f"{version}: {name}"),
            on_texts=lambda count: progress.advance(task, count),
        )

    def expect(self, texts: int, engines: Engines) -> None:
        """Say how many texts each engine classifies, the reference among them."""
        names = set(runnable_engines())
        if engines is Engines.fastest and not names <= {REFERENCE, *ENGINES_WITH_FILES}:
            names -= ENGINES_WITH_FILES
        self._set_total(len(names) * texts)

    def done(self, model: SavedModel) -> SavedModel:
        """Print what was saved, and return it."""
        seconds = time.perf_counter() - self._started
        console.print(f"{self._version}: saved as [bold]{model.tag}[/] in {seconds:.1f} s")
        if model.max_tokens > USUAL_WINDOW:
            console.print(
                f"    its window is {model.max_tokens:,} tokens, and so long a text takes seconds "
                "and gigabytes (docs/models.md); --max-tokens lowers it",
                soft_wrap=True,
            )
        outputs = outputs_of(read_json_object(model.folder / CONFIG_FILE))
        if not outputs.named:
            console.print(f"    its outputs: {outputs}", soft_wrap=True)
        metadata: Mapping[str, Any] = bentoml.models.get(model.tag).info.metadata
        accuracy = metadata.get("gates", {}).get("accuracy")
        if isinstance(accuracy, Mapping):
            console.print(f"    {held_out_sentence(accuracy)}", soft_wrap=True)
        print_engines(metadata)
        return model


@contextmanager
def _saving(version: Version, origin: str) -> Iterator[_Bar]:
    """Show a bar while a model is saved; a line, where there is no terminal."""
    if not console.is_terminal:
        console.print(f"{version}: preparing ({origin}), for up to some minutes", soft_wrap=True)
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        yield _Bar(progress, version, origin)


def _gate(engines: Engines, texts: Path | None, progress: _Bar) -> MakeEngines:
    """Makes engines and judges them on texts of the user's, or out of packages."""
    plan = EnginePlan(
        runnable_engines(),
        read_texts(texts) if texts else packaged_texts(),
        fastest_only=engines is Engines.fastest,
        progress=progress.steps,
    )
    progress.expect(len(plan.texts.gate), engines)
    return partial(build_engines, plan=plan)


def print_engines(metadata: Mapping[str, Any]) -> None:
    """Print the gate's figures of every engine."""
    for name, report in metadata["engines"].items():
        if report:
            console.print(f"    {name:<18} {GateReport(**report)}", soft_wrap=True)
