"""List, show, compare, import, export, verify and delete saved models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from rich.markup import escape

from core.command_output import JsonOption, emit, fail, note, slow_step
from core.counted import counted
from core.late_packages import PackagesUnavailable
from core.settings import get_settings
from core.temporary_folders import scratch_folder, temporary_files_in
from core.types import Version
from models.labels import LabelOptions, parse_labels
from models.registry import sources
from models.registry.catalogue import Entry, entries, entry, outdated_tags
from models.registry.comparing import compare_saved, fastest_classifier
from models.registry.held_out import (
    MARGIN,
    MIN_TEXTS,
    AccuracyGate,
)
from models.registry.removal import (
    InUse,
    Verdict,
    judge_all,
    judge_named,
    removal_document,
    remove,
)
from models.registry.saving import (
    ENGINES_HELP,
    TEXTS_HELP,
    Engines,
    console,
    refresh,
    save_checkpoint,
)
from models.registry.verifying import Finding, verify
from models.registry.views import comparison, comparison_view, entry_view, list_view, removal_view
from models.starter.card import StarterError
from models.texts import InvalidTexts, packaged_texts, read_labelled
from runners.engines.choice import EngineUnavailable
from runners.model_store import InvalidCheckpoint, find_model
from scripts.running import run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

EMPTY_STORE = "The store has no sentiment model. `make models` saves the starter models."

Tag = Annotated[str, typer.Argument(help="name:version, as `list` shows it")]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        help="texts the model was not trained on: a CSV, JSON lines or Parquet file with text and"
        " label"
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="of a CSV file of --held-out, such as ';' or tab", show_default="found"),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="of the file of --held-out, such as cp1252", show_default="UTF-8 or UTF-16"),
]


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Print an expected error as a sentence and exit with 1."""
    try:
        yield
    except (
        InvalidCheckpoint, InvalidTexts, EngineUnavailable, StarterError, PackagesUnavailable,
        OSError, bentoml.exceptions.BentoMLException,
    ) as error:  # fmt: skip
        fail(str(error))


@app.command(name="list")
def list_models(*, as_json: JsonOption = False) -> None:
    """List every sentiment model of the store, the newest first."""
    found = list(entries(get_settings()))
    emit(
        [model.summary() for model in found],
        lambda: console.print(list_view(found) if found else EMPTY_STORE),
    )


@app.command()
def show(tag: Tag, *, as_json: JsonOption = False) -> None:
    """Show the source, lineage, gates and engines of a model."""
    with _errors_as_sentences():
        found = entry(tag, get_settings())
    document = {**found.summary(), "path": str(found.model.folder), "metadata": found.metadata}
    emit(document, lambda: console.print(entry_view(found)))


@app.command()
def compare(
    first: Tag,
    second: Tag,
    held_out: HeldOut = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    *,
    examples: Annotated[int, typer.Option(help="number of texts to show on which they differ")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare two models on labelled texts: agreement, accuracy, and its difference."""
    if held_out is None and (delimiter is not None or encoding is not None):
        raise typer.BadParameter("needs labelled texts: --held-out FILE")
    with _errors_as_sentences():
        with console.status("reading the texts"):
            labelled = (
                None
                if held_out is None
                else read_labelled(held_out, MIN_TEXTS, encoding=encoding, delimiter=delimiter)
            )
            # A wrong tag is refused before texts are downloaded.
            models = [entry(tag, get_settings()) for tag in (first, second)]
            texts = packaged_texts().gate if labelled is None else labelled
        compared = compare_saved(models[0], models[1], texts, get_settings())
    emit(
        comparison(models[0], models[1], compared),
        lambda: console.print(comparison_view(models[0], models[1], compared, examples=examples)),
    )


@app.command(name="import")
def import_model(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    source: Annotated[str, typer.Argument(help=sources.HELP)],
    version: Annotated[Version, typer.Option("--as", help="the version to import it as")],
    held_out: HeldOut = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="reject the model below this accuracy on --held-out"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="tag of a saved model; reject a model not shown to be as accurate on --held-out"
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="accuracy that the model may lose to --against")
    ] = MARGIN,
    engines: Annotated[Engines, typer.Option(help=ENGINES_HELP)] = Engines.fastest,
    texts: Annotated[Path | None, typer.Option(help=TEXTS_HELP)] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help='the sentiment of each class, such as "LABEL_0=negative,LABEL_1=positive"'
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="for a checkpoint with one output, whose sigmoid is the probability of positive:"
            " from which one on a text is positive"
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="the most tokens of a text", show_default="512; 2,048 for ModernBERT"),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Save a model into the store, or reject it at a gate and leave no trace."""
    for_held_out = (min_accuracy, against, delimiter, encoding)
    if held_out is None and any(value is not None for value in for_held_out):
        raise typer.BadParameter("needs labelled texts: --held-out FILE")
    with _errors_as_sentences():
        gate = None
        if held_out is not None:
            gate = AccuracyGate(
                read_labelled(held_out, MIN_TEXTS, encoding=encoding, delimiter=delimiter),
                held_out.name,
                min_accuracy=min_accuracy,
                against=fastest_classifier(against, get_settings()) if against else None,
                against_tag=against and find_model(against).tag,
                margin=margin,
            )
        fetch = partial(sources.fetch_import, source)
        options = LabelOptions(parse_labels(labels) if labels is not None else None, threshold)
        saved = save_checkpoint(
            version, source, fetch, engines=engines, texts=texts, acceptance_gate=gate,
            options=options, max_tokens=max_tokens,
        )  # fmt: skip
        if held_out is None:
            console.print("Its accuracy was not evaluated: give labelled texts with --held-out.")
        emit(entry(saved.tag, get_settings()).summary())


@app.command(name="refresh")
def refresh_models(
    tag: Annotated[
        str | None, typer.Argument(help="name:version; by default every model that needs it")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help=TEXTS_HELP)] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make today's engines for models that an older release saved."""
    with _errors_as_sentences():
        old = [find_model(tag).tag] if tag else outdated_tags()
        for each in old:
            refresh(each, texts=texts)
    if not old:
        console.print("Every model has the engines of this release.")
    emit({"refreshed": old})


@app.command()
def export(
    tag: Tag,
    file: Annotated[Path, typer.Argument(help="FILE.bentomodel; `import` reads it")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Write a model to a file, in about a minute per 100 MB."""
    if not file.parent.is_dir():
        raise typer.BadParameter(f"no such folder: {file.parent}", param_hint="FILE")
    if file.suffix != ".bentomodel":
        raise typer.BadParameter("the name has to end in .bentomodel", param_hint="FILE")
    with _errors_as_sentences():
        model = find_model(tag)
        with (
            slow_step(f"packing {model.tag}"),
            scratch_folder() as scratch,
            temporary_files_in(scratch),
        ):
            written = bentoml.models.export_model(model.tag, str(file.resolve()))
    emit({"tag": model.tag, "file": written}, lambda: console.print(f"{tag} is in {written}"))


@app.command(name="verify")
def verify_models(
    tag: Annotated[str | None, typer.Argument(help="name:version; by default every model")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Check that files, revision and the answers of engines are as saved."""
    with _errors_as_sentences():
        chosen = [entry(tag, get_settings())] if tag else list(entries(get_settings()))
    if not chosen:
        console.print(EMPTY_STORE)
    found = {item.model.tag: _verify(item) for item in chosen}
    emit({tag: [finding._asdict() for finding in findings] for tag, findings in found.items()})
    wrong = [item for findings in found.values() for item in findings]
    if problems := sum(item.problem is not None and not item.skipped for item in wrong):
        fail(f"{counted(problems, 'problem')}; import or save those models again")


def _verify(entry: Entry) -> list[Finding]:
    """Print the findings on a model, each as soon as it is made."""
    console.print(f"[bold]{entry.model.tag}[/]")
    findings = []
    for finding in verify(entry):
        findings.append(finding)
        state = "[green]as saved[/]"
        if finding.problem is not None:
            style = "dim" if finding.skipped else "red"
            state = f"[{style}]{escape(finding.problem)}[/]"
        console.print(f"    {finding.subject:<18} {state}")
    return findings


Yes = Annotated[bool, typer.Option("--yes", help="delete without asking")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="delete nothing, and say what would be")]
IgnoreHistory = Annotated[
    bool,
    typer.Option(
        "--ignore-history",
        help="do not ask PostgreSQL for earlier rollout policies: a roll-back to one may fail",
    ),
]


@app.command(name="delete")
def delete_models(
    tags: Annotated[list[str], typer.Argument(metavar="TAG", help="exact tags")],
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    ignore_history: IgnoreHistory = False,
    as_json: JsonOption = False,
) -> None:
    """Delete models from the store; if one of them is in use, none."""
    with _errors_as_sentences():
        in_use = _in_use(ignore_history=ignore_history)
        verdicts = judge_named(tags, list(entries(get_settings())), in_use)
        if any(verdict.kept_because for verdict in verdicts):
            emit(removal_document(verdicts, deleted=(), dry_run=dry_run))
            for verdict in verdicts:
                for reason in verdict.kept_because:
                    note(f"{verdict.tag} stays: {reason}")
            fail("Nothing is deleted")
        _remove(verdicts, yes=yes, dry_run=dry_run)


@app.command()
def prune(
    *,
    keep: Annotated[
        int, typer.Option(min=0, help="models of each version that stay, the newest")
    ] = 3,
    yes: Yes = False,
    dry_run: DryRun = False,
    ignore_history: IgnoreHistory = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old models that nothing needs."""
    with _errors_as_sentences():
        in_use = _in_use(ignore_history=ignore_history)
        verdicts = judge_all(list(entries(get_settings())), in_use, keep=keep)
        _remove(verdicts, yes=yes, dry_run=dry_run)


def _in_use(*, ignore_history: bool) -> InUse:
    # Imported here, so that --help needs no SQLAlchemy.
    from serving.models_in_use import models_in_use, settings_with_history

    with slow_step("reading which models are in use"):
        settings = get_settings() if ignore_history else settings_with_history()
        return models_in_use(settings, history=not ignore_history)


def _remove(verdicts: Sequence[Verdict], *, yes: bool, dry_run: bool) -> None:
    going = [verdict for verdict in verdicts if not verdict.kept_because]
    if going and not (yes or dry_run):
        names = ", ".join(verdict.tag for verdict in going)
        typer.confirm(f"Delete {names} for ever?", abort=True, err=True)
    deleted = [] if dry_run else remove(going)
    document = removal_document(verdicts, deleted=deleted, dry_run=dry_run)
    emit(document, lambda: console.print(removal_view(verdicts, dry_run=dry_run)))


if __name__ == "__main__":
    run_command(app)
