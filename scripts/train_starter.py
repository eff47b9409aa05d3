"""Train a starter adapter again and write it with its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from core.command_output import fail
from models.starter.card import ADAPTERS, StarterError
from models.starter.recipes import RECIPES
from models.starter.sources import DEFAULT_CACHE
from scripts.running import run_command

console = Console()


def main(
    version: Annotated[str, typer.Option(help="Which recipe to run: v1 or v2.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the adapter", show_default="the committed one")
    ] = None,
    cache: Annotated[
        Path, typer.Option(help="Folder for downloaded packages.", show_default=False)
    ] = DEFAULT_CACHE,
    threads: Annotated[int, typer.Option(help="CPU threads for training.")] = 2,
    epochs: Annotated[int | None, typer.Option(help="Override the recipe, for a trial.")] = None,
) -> None:
    """Download the texts, train one adapter and write it with its card.

    Takes a quarter to half an hour. Ctrl-C leaves the old adapter as it was.
    """
    # Imported here: torch takes seconds.
    import torch

    from models.starter.adapter import make_adapter

    if version not in RECIPES:
        raise typer.BadParameter(f"choose one of {', '.join(RECIPES)}", param_hint="--version")
    recipe = RECIPES[version]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    folder = output or ADAPTERS / version
    torch.set_num_threads(threads)
    columns = (
        TextColumn("loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console.print(f"reading the texts of {', '.join(recipe.domains)}; training; measuring")
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("training", total=None, loss=0.0)

            def show(step: int, steps: int, loss: float) -> None:
                progress.update(bar, completed=step, total=steps, loss=loss)

            card = make_adapter(recipe, folder, cache, show)
    except StarterError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        console.print(f"stopped; {folder} is unchanged")
        raise typer.Exit(130) from error
    console.print_json(data=card["held_out"])
    console.print(f"wrote {folder}")


if __name__ == "__main__":
    run_command(main)
