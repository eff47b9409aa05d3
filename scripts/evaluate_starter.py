"""Print the held-out accuracy of the starter models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.starter.card import StarterError
from models.starter.sources import DEFAULT_CACHE
from scripts.running import run_command

if TYPE_CHECKING:
    from models.starter.evaluation import Evaluation

console = Console()
progress_console = Console(stderr=True)


def main(
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="One more set: lines of text, a tab and 0 or 1; repeatable."
        ),
    ] = None,
    cache: Annotated[
        Path, typer.Option(help="Folder for downloaded packages.", show_default=False)
    ] = DEFAULT_CACHE,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Build every committed version and measure it on texts that no version was trained on."""
    # Imported here: torch takes seconds.
    import torch

    from models.starter.evaluation import evaluate, read_examples

    torch.set_num_threads(threads)
    pairs = [option.partition("=") for option in extra or []]
    if any(not separator for _, separator, _ in pairs):
        raise typer.BadParameter("write NAME=FILE", param_hint="--extra")
    try:
        with progress_console.status("reading the labelled texts") as status:
            sets = {name: read_examples(Path(file)) for name, _, file in pairs}
            evaluation = evaluate(sets, cache, status.update)
    except StarterError as error:
        progress_console.print(f"[red]{error}")
        raise typer.Exit(1) from error
    if as_json:
        figures = {"n": evaluation.sizes, "accuracy": evaluation.accuracy}
        typer.echo(json.dumps(figures, indent=2))
    else:
        console.print(_table(evaluation))


def _table(evaluation: Evaluation) -> Table:
    table = Table("held-out set", title="Accuracy, %")
    for heading in ("n", *evaluation.accuracy):
        table.add_column(heading, justify="right")
    for domain, size in evaluation.sizes.items():
        cells = [f"{100 * accuracies[domain]:.1f}" for accuracies in evaluation.accuracy.values()]
        table.add_row(domain.replace("_", " "), str(size), *cells)
    return table


if __name__ == "__main__":
    run_command(main)
