"""Saves both model versions into the BentoML model store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import bentoml
import typer
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from runners.checkpoint import save_checkpoint
from runners.engine_choice import REFERENCE, runnable_engines
from runners.export.build import EnginePlan, EngineWatch
from runners.model_store import InvalidCheckpoint, SavedModel
from scripts.engine_texts import InvalidTexts, packaged_texts, read_texts
from scripts.starter.build import build_starter
from scripts.starter.card import StarterError, adapter_digest
from values import Version

DEFAULT_HUB_REPOS: dict[Version, str] = {
    "v1": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "v2": "lxyuan/distilbert-base-multilingual-cased-sentiments-student",
}
# Weights and tokenizer; not the same weights again for other frameworks.
_WANTED_FILES = ["*.json", "*.safetensors", "pytorch_model.bin", "*.txt", "*.model", "README.md"]

console = Console()


_COLUMNS = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


class Engines(StrEnum):
    fastest = "fastest"
    all = "all"
    torch = "torch"


class Source(StrEnum):
    starter = "starter"
    hub = "hub"


def main(  # noqa: PLR0917  typer makes options of these; nobody calls it by position
    source: Annotated[
        Source, typer.Option(help="starter: from pip packages; hub: a Hugging Face repo or folder")
    ] = Source.starter,
    v1: Annotated[
        str, typer.Option(help="with --source hub: REPO, REPO@REVISION, or a local folder")
    ] = DEFAULT_HUB_REPOS["v1"],
    v2: Annotated[
        str, typer.Option(help="with --source hub: REPO, REPO@REVISION, or a local folder")
    ] = DEFAULT_HUB_REPOS["v2"],
    only: Annotated[str | None, typer.Option(help="v1 or v2: save only this one")] = None,
    engines: Annotated[
        Engines,
        typer.Option(
            help="fastest: the first to pass the gate, of those that this machine can run; all: "
            "every one, for an image that will run elsewhere; torch: only the reference, in seconds"
        ),
    ] = Engines.fastest,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines {text, label} of your own domain, to judge engines by instead of "
            "the packaged English ones; at least 2,300"
        ),
    ] = None,
) -> None:
    """Save sentiment-distilbert-v1 and -v2 into the BentoML model store."""
    wanted: dict[Version, str] = {"v1": v1, "v2": v2}
    if only is not None and only not in wanted:
        raise typer.BadParameter("write v1 or v2", param_hint="--only")
    for version, location in wanted.items():
        if only is None or version == only:
            try:
                save_version(version, source, location, engines=engines, texts=texts)
            except (InvalidCheckpoint, InvalidTexts, StarterError) as error:
                console.print(f"[bold red]{version} is not saved:[/] {escape(str(error))}")
                raise typer.Exit(1) from error


def save_version(
    version: Version,
    source: Source,
    location: str = "",
    *,
    engines: Engines = Engines.fastest,
    texts: Path | None = None,
) -> None:
    """Save one version and say so.

    Raises:
        InvalidCheckpoint: it cannot be served, or cannot be fetched.
        InvalidTexts: the file of texts cannot be used.
    """
    started = time.perf_counter()
    with Progress(*_COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task(f"{version}: preparing ({source})", total=None)
        plan = None
        if engines is not Engines.torch:
            wanted = [name for name in runnable_engines() if name != REFERENCE]
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
        with _checkpoint(version, source, location) as (folder, facts):
            model = save_checkpoint(folder, version, facts, plan)
    seconds = time.perf_counter() - started
    console.print(f"{version}: saved as [bold]{model.tag}[/] in {seconds:.1f} s")
    _print_engines(model)


def _print_engines(model: SavedModel) -> None:
    metadata: dict[str, Any] = bentoml.models.get(model.tag).info.metadata
    for name, report in metadata["engines"].items():
        if report:
            console.print(
                f"    {name:<17} agreement {report['agreement']:.2%}, mean |dp| "
                f"{report['mean_difference']:.4f}, accuracy {report['accuracy']:.2%} "
                f"(torch {report['reference_accuracy']:.2%}), {report['texts']:,} texts",
                soft_wrap=True,
            )


@contextmanager
def _checkpoint(
    version: Version, source: Source, location: str
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder in the Hugging Face layout, and what is known of it."""
    if source is Source.starter:
        with tempfile.TemporaryDirectory() as folder:
            card = build_starter(version, Path(folder))
            digest = adapter_digest(version)
            yield Path(folder), {"source": "starter", "adapter_sha256": digest, **asdict(card)}
    else:
        yield (
            fetch(location),
            {
                "source": f"hub: {location}",
                "base": location,
                "training_data": "see the model card of the source",
                "licence": "see the model card of the source",
                "held_out_accuracy": {},
            },
        )


def fetch(location: str) -> Path:
    """The folder of a Hugging Face repo (`REPO` or `REPO@REVISION`), or of a local checkpoint.

    Raises:
        InvalidCheckpoint: the hub or the repo cannot be reached.
    """
    if Path(location).is_dir():
        return Path(location)
    repo, _, revision = location.partition("@")
    try:
        return Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=_WANTED_FILES)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InvalidCheckpoint(
            f"{location} is no local folder and cannot be fetched from the hub: {error}"
        ) from error


if __name__ == "__main__":
    typer.run(main)
