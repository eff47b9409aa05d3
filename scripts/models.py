"""The BentoML model store as a registry: what is there, where it is from, if it is whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from rich.markup import escape
from rich.progress import Progress

from core.settings import get_settings
from core.types import Version
from models.checkpoint import Judge
from models.export.gate import classify_texts
from models.registry import sources
from models.registry.catalogue import Entry, entries, entry
from models.registry.gates import MARGIN, AccuracyGate, not_gated
from models.registry.held_out import read_held_out, side_by_side
from models.registry.saving import COLUMNS, ENGINES_HELP, TEXTS_HELP, Engines, console, save
from models.registry.sources import Fetched
from models.registry.verifying import verify
from models.registry.views import comparison_view, entry_view, list_view
from models.starter.card import StarterError
from models.texts import InvalidTexts, packaged_texts
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import EngineUnavailable, choose_engine
from runners.model_store import InvalidCheckpoint, find_model

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

NONE = "There is none. `make models` saves the starter models."

Tag = Annotated[str, typer.Argument(help="name:version, as `list` shows it")]
HeldOut = Annotated[
    Path | None,
    typer.Option(help="labelled texts that it was not trained on: CSV or JSON lines, text, label"),
]


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong ends the command with a sentence."""
    try:
        yield
    except (
        InvalidCheckpoint, InvalidTexts, EngineUnavailable, StarterError, OSError,
        bentoml.exceptions.BentoMLException,
    ) as error:  # fmt: skip
        console.print(f"[bold red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(1) from error


@app.command(name="list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Every sentiment model of the store, the newest first."""
    found = list(entries(get_settings()))
    if as_json:
        print(json.dumps([one.summary() for one in found], indent=1))
    elif found:
        console.print(list_view(found))
    else:
        console.print(NONE)


@app.command()
def show(tag: Tag) -> None:
    """All that is known of a model: source, lineage, gates, engines."""
    with _told():
        console.print(entry_view(entry(tag, get_settings())))


@app.command()
def compare(
    first: Tag,
    second: Tag,
    held_out: HeldOut = None,
    examples: Annotated[int, typer.Option(help="texts on which they differ, to show")] = 0,
) -> None:
    """Two models side by side on labelled texts: agreement, accuracy, and whether it differs."""
    with _told():
        with console.status("reading the texts"):
            texts = read_held_out(held_out) if held_out else list(packaged_texts().gate)
        of = [entry(tag, get_settings()) for tag in (first, second)]
        with Progress(*COLUMNS, console=console, transient=True) as progress:
            answers = []
            for one in of:
                task = progress.add_task(one.model.tag, total=len(texts))
                answers.append(
                    classify_texts(
                        _classifier(one.model.tag),
                        texts,
                        streams=usable_cpus(),
                        progress=lambda done, task=task: progress.advance(task, done),  # type: ignore[misc]
                    )
                )
        compared = side_by_side(texts, *answers)
        console.print(comparison_view(of[0], of[1], compared, examples=examples))


@app.command(name="import")
def import_model(  # noqa: PLR0917  typer makes options of these; nobody calls it by position
    source: Annotated[str, typer.Argument(help=sources.HELP)],
    version: Annotated[Version, typer.Option("--as", help="whose place it is for")],
    held_out: HeldOut = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="on them, or it is refused")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="it has to be shown no worse than this one, on them")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="accuracy that it may lose to --against")
    ] = MARGIN,
    engines: Annotated[Engines, typer.Option(help=ENGINES_HELP)] = Engines.fastest,
    texts: Annotated[Path | None, typer.Option(help=TEXTS_HELP)] = None,
) -> None:
    """Take a model into the store, or refuse it at a gate and leave no trace."""
    if held_out is None and (min_accuracy is not None or against is not None):
        raise typer.BadParameter("needs labelled texts: --held-out FILE")
    with _told():
        judge: Judge = not_gated
        if held_out is not None:
            judge = AccuracyGate(
                read_held_out(held_out),
                held_out.name,
                least=min_accuracy,
                against=_classifier(against) if against else None,
                against_tag=against and find_model(against).tag,
                margin=margin,
            )
        save(version, source, _fetched(source), engines=engines, texts=texts, judge=judge)
        if held_out is None:
            console.print("Its accuracy was not judged: --held-out names texts to judge it by.")


@contextmanager
def _fetched(source: str) -> Iterator[Fetched]:
    with tempfile.TemporaryDirectory() as temporary:
        fetched = sources.fetch(source, Path(temporary))
        imported = {
            "imported_from": source,
            "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "imported_with": {
                name: package_version(name) for name in ("torch", "transformers", "bentoml")
            },
        }
        yield replace(fetched, facts={**fetched.facts, **imported})


@app.command()
def export(
    tag: Tag, file: Annotated[Path, typer.Argument(help="FILE.bentomodel; import takes it back")]
) -> None:
    """Write a model to a file; to pack a hundred megabytes takes a minute."""
    if not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}", param_hint="FILE")
    if file.suffix != ".bentomodel":
        raise typer.BadParameter("its name has to end in .bentomodel", param_hint="FILE")
    with _told():
        model = find_model(tag)
        with console.status(f"packing {model.tag}"):
            written = bentoml.models.export_model(model.tag, str(file))
    console.print(f"{tag} is in {written}")


@app.command(name="verify")
def verify_models(
    tag: Annotated[str | None, typer.Argument(help="one model; else all of them")] = None,
) -> None:
    """Look whether files, revision, engines and their answers are those that were saved."""
    with _told():
        chosen = [entry(tag, get_settings())] if tag else list(entries(get_settings()))
    if not chosen:
        console.print(NONE)
    faults = sum(_verified(one) for one in chosen)
    if faults:
        console.print(f"[bold red]{faults} faults[/]; import or save again what has them")
        raise typer.Exit(1)


def _verified(one: Entry) -> int:
    console.print(f"[bold]{one.model.tag}[/]")
    faults = 0
    for finding in verify(one):
        if finding.fault is None:
            console.print(f"    {finding.what:<17} [green]as saved[/]")
        elif finding.skipped:
            console.print(f"    {finding.what:<17} [dim]{escape(finding.fault)}[/]")
        else:
            faults += 1
            console.print(f"    {finding.what:<17} [red]{escape(finding.fault)}[/]")
    return faults


def _classifier(tag: str) -> Classifier:
    """By the fastest engine that the model has."""
    model = find_model(tag)
    settings = get_settings()
    engine = choose_engine(model, None, streams=usable_cpus(), mkldnn=settings.mkldnn_enable)
    return Classifier(model, engine)


if __name__ == "__main__":
    app()
