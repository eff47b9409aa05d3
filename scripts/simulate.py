"""Simulate rollouts, tests and windows: measure what docs/statistics.md promises of them."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from typer import Option

from core.command_output import JsonOption, emit
from loadtest.table import console
from scripts.running import run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Simulate rollouts, tests and windows: measure what docs/statistics.md promises of them."""


@app.command()
def guardrails(
    rollouts: Annotated[int, Option(min=1, help="of each scenario")] = 1_000,
    seconds: Annotated[float, Option(min=1, help="at most so long, for all scenarios")] = 3_600.0,
    seed: int = 1,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure how often an equal challenger is taken back, and how soon a worse one is."""
    from loadtest.simulation.guardrails import SCENARIOS, simulate  # imports SciPy

    table = Table("scenario", "rollouts", "taken back", "95 %", "median", "90 %", "promise")
    began, is_kept, document = time.monotonic(), True, []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for number, scenario in enumerate(SCENARIOS, start=1):
            task = progress.add_task(scenario.name, total=rollouts)
            until = began + seconds * number / len(SCENARIOS)
            found = simulate(scenario, rollouts, seed, partial(progress.advance, task), until)
            low, high = found.interval
            promise = "" if found.is_kept else "[red]broken[/]"
            if found.is_kept and (scenario.most_taken_back or scenario.median_minutes):
                promise = "kept"
            table.add_row(
                scenario.name, f"{found.rollouts:,}", f"{found.taken_back / found.rollouts:.2%}",
                f"{low:.2%} to {high:.2%}", _minutes(found.median_minutes),
                _minutes(found.most_minutes_of_90_percent), promise,
            )  # fmt: skip
            is_kept &= found.is_kept
            document.append(
                {
                    "scenario": scenario.name,
                    "rollouts": found.rollouts,
                    "taken_back": found.taken_back,
                    "taken_back_share_95": found.interval,
                    "median_minutes": found.median_minutes,
                    "most_minutes_of_90_percent": found.most_minutes_of_90_percent,
                    "is_promise_kept": found.is_kept,
                }
            )
    emit(document, lambda: console.print(table))
    if not is_kept:
        raise typer.Exit(1)


@app.command()
def drift(
    comparisons: Annotated[int, Option(min=1, help="of each scenario and window")] = 400,
    seed: int = 1,
) -> None:
    """Measure how often drift of content is called, with and without any.

    It needs v1's saved model, whose tokenizer it uses, and downloads texts (18 MB) on first use.
    """
    from tokenizers import Tokenizer

    from core.settings import get_settings
    from loadtest.simulation.drift import SCENARIOS, WINDOWS, described_texts, simulate
    from models.starter.sources import DEFAULT_CACHE
    from runners.model_store import find_model

    folder = find_model(get_settings().model_tag("v1")).folder
    described = described_texts(DEFAULT_CACHE, Tokenizer.from_file(str(folder / "tokenizer.json")))
    table, is_kept = (
        Table("called drift, of windows of", *map("{:,}".format, WINDOWS), "promise"),
        True,
    )
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for scenario in SCENARIOS:
            task = progress.add_task(scenario.name, total=comparisons * len(WINDOWS))
            advance = partial(progress.advance, task)
            found = [
                simulate(
                    scenario,
                    described,
                    window,
                    comparisons=comparisons,
                    seed=seed,
                    on_comparison=advance,
                )
                for window in WINDOWS
            ]
            kept = all(one.is_kept for one in found)
            is_promised = scenario.most_called is not None or scenario.seen_from is not None
            promise = "[red]broken[/]" if not kept else "kept" if is_promised else ""
            table.add_row(scenario.name, *(f"{one.share:.1%}" for one in found), promise)
            is_kept &= kept
    console.print(table)
    if not is_kept:
        raise typer.Exit(1)


@app.command()
def verdicts(
    runs: Annotated[int, Option(min=1, help="of each scenario")] = 1_000,
    seconds: Annotated[float, Option(min=1, help="at most so long, for all scenarios")] = 3_600.0,
    seed: int = 1,
) -> None:
    """Measure how often a verdict of an A/B test is false, and how many labels it needs."""
    from loadtest.simulation.verdicts import scenarios, simulate  # imports SciPy

    table = Table("scenario", "runs", "verdicts", "95 %", "median", "80 %", "promise")
    began, is_kept, all_of_them = time.monotonic(), True, list(scenarios())
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for number, scenario in enumerate(all_of_them, start=1):
            task = progress.add_task(scenario.name, total=runs)
            until = began + seconds * number / len(all_of_them)
            found = simulate(scenario, runs, seed, partial(progress.advance, task), until)
            low, high = found.interval
            promise = "kept" if scenario.most_verdicts is not None else ""
            table.add_row(
                scenario.name, f"{found.runs:,}", f"{found.verdicts / found.runs:.2%}",
                f"{low:.2%} to {high:.2%}", _labels(found.within(0.5)), _labels(found.within(0.8)),
                promise if found.is_kept else "[red]broken[/]",
            )  # fmt: skip
            is_kept &= found.is_kept
    console.print(table)
    if not is_kept:
        raise typer.Exit(1)


def _labels(labels: float) -> str:
    return f"{labels:,.0f} labels" if labels < float("inf") else "-"


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < float("inf") else "-"


if __name__ == "__main__":
    run_command(app)
