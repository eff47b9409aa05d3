"""Prints the held-out accuracy of the starter models: `python -m scripts.evaluate_starter`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from models.starter.build import build_starter, load_starter
from models.starter.card import StarterError, starter_versions
from models.starter.datasets import HELD_OUT_DOMAINS, load_data
from models.starter.examples import Example, labelled_example
from models.starter.sources import DEFAULT_CACHE, Labelled
from models.starter.training import accuracy

Accuracies = dict[str, dict[str, float]]

console = Console()
progress_console = Console(stderr=True)


def main(
    extra: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: lines of text, a tab and 0 or 1; measured as one more set."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where fetched packages are kept.")] = DEFAULT_CACHE,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Build every committed version and measure it on texts that no version was trained on."""
    torch.set_num_threads(threads)
    try:
        with progress_console.status("reading and splitting the labelled texts"):
            data = load_data(cache)
            sets = {domain: data.held_out[domain] for domain in HELD_OUT_DOMAINS}
            for name, examples in (_read_extra(option) for option in extra or []):
                sets[name] = data.unseen(examples)
        measured = {version: _measure(version, sets) for version in starter_versions()}
    except StarterError as error:
        progress_console.print(f"[red]{error}")
        raise typer.Exit(1) from error
    sizes = {domain: len(examples) for domain, examples in sets.items()}
    if as_json:
        typer.echo(json.dumps({"n": sizes, "accuracy": measured}, indent=2))
    else:
        console.print(_table(sizes, measured))


def _measure(version: str, sets: dict[str, list[Example]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        build_starter(version, Path(folder))
        classifier, tokenizer = load_starter(Path(folder))
    accuracies = {}
    for domain, examples in sets.items():
        with progress_console.status(f"{version}: {len(examples)} texts of {domain}"):
            accuracies[domain] = round(accuracy(classifier, tokenizer, examples), 4)
    return accuracies


def _read_extra(option: str) -> tuple[str, list[Example]]:
    name, separator, file = option.partition("=")
    if not separator:
        raise typer.BadParameter(f"{option!r} is not NAME=FILE")
    lines = Path(file).read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.rpartition("\t") for line in lines]
    return name, [labelled_example(Labelled(text.strip(), int(label))) for text, _, label in rows]


def _table(sizes: dict[str, int], measured: Accuracies) -> Table:
    table = Table("held-out set", title="Accuracy, %")
    for heading in ("n", *measured):
        table.add_column(heading, justify="right")
    for domain, size in sizes.items():
        cells = [f"{100 * accuracies[domain]:.1f}" for accuracies in measured.values()]
        table.add_row(domain.replace("_", " "), str(size), *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
