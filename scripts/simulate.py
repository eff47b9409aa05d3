"""Simulate rollouts, tests and windows: measure what docs/statistics.md promises of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Protocol, TypeVar

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer import Option

from core.command_output import FAILED, JsonOption, emit
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
    is_kept, document = True, []
    with _progress() as progress:
        for scenario, advance, until in _timed(SCENARIOS, rollouts, seconds, progress):
            found = simulate(scenario, rollouts, seed, advance, until)
            low, high = found.interval
            table.add_row(
                scenario.name, f"{found.rollouts:,}", f"{found.taken_back / found.rollouts:.2%}",
                f"{low:.2%} to {high:.2%}", _minutes(found.median_minutes),
                _minutes(found.most_minutes_of_90_percent),
                _promise(is_promised=scenario.is_promised, is_kept=found.is_kept),
            )  # fmt: skip
            is_kept &= found.is_kept
            document.append(found.to_json())
    _end(document, table, is_kept=is_kept)


@app.command()
def drift(
    comparisons: Annotated[int, Option(min=1, help="of each scenario and window")] = 400,
    seed: int = 1,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure how often drift of content is called, with and without any.

    It needs v1's saved model, whose tokenizer it uses, and downloads texts (18 MB) on first use.
    """
    from tokenizers import Tokenizer

    from core.settings import get_settings
    from loadtest.simulation.drift import SCENARIOS, WINDOWS, described_texts, simulate, to_json
    from models.starter.sources import DEFAULT_CACHE
    from runners.model_store import find_model

    folder = find_model(get_settings().model_tag("v1")).folder
    described = described_texts(DEFAULT_CACHE, Tokenizer.from_file(str(folder / "tokenizer.json")))
    largest = f"others in moved texts of {WINDOWS[-1]:,}"
    windows = map("{:,}".format, WINDOWS)
    table = Table("called drift, of windows of", *windows, largest, "promise")
    is_kept, document = True, []
    with _progress() as progress:
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
            promise = _promise(is_promised=scenario.is_promised, is_kept=kept)
            others = found[-1].share_of_others
            moved = "" if others is None else f"{others:.0%}"
            table.add_row(scenario.name, *(f"{one.share:.1%}" for one in found), moved, promise)
            is_kept &= kept
            document.append(to_json(found))
    _end(document, table, is_kept=is_kept)


@app.command()
def verdicts(
    runs: Annotated[int, Option(min=1, help="of each scenario")] = 1_000,
    seconds: Annotated[float, Option(min=1, help="at most so long, for all scenarios")] = 3_600.0,
    seed: int = 1,
    *,
    only: Annotated[str, Option(help="scenarios that have this in their name")] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure how often a verdict of an A/B test is false, and how many labels it needs."""
    from loadtest.simulation.verdicts import scenarios, simulate  # imports SciPy

    table = Table("scenario", "runs", "verdicts", "95 %", "median", "80 %", "promise")
    is_kept, document = True, []
    with _progress() as progress:
        chosen = [scenario for scenario in scenarios() if only in scenario.name]
        for scenario, advance, until in _timed(chosen, runs, seconds, progress):
            found = simulate(scenario, runs, seed, advance, until)
            low, high = found.interval
            table.add_row(
                scenario.name, f"{found.runs:,}", f"{found.verdicts / found.runs:.2%}",
                f"{low:.2%} to {high:.2%}", _labels(found.within(0.5)), _labels(found.within(0.8)),
                _promise(is_promised=scenario.is_promised, is_kept=found.is_kept),
            )  # fmt: skip
            is_kept &= found.is_kept
            document.append(found.to_json())
    _end(document, table, is_kept=is_kept)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Scenario = TypeVar("_Scenario", bound=_Named)


def _progress() -> Progress:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _timed(
    scenarios: Sequence[_Scenario], runs: int, seconds: float, progress: Progress
) -> Iterator[tuple[_Scenario, Callable[[], None], float]]:
    """Each scenario, what to call after a run, and when to stop, by `time.monotonic`."""
    began = time.monotonic()
    for number, scenario in enumerate(scenarios, start=1):
        task = progress.add_task(scenario.name, total=runs)
        yield scenario, partial(progress.advance, task), began + seconds * number / len(scenarios)


def _promise(*, is_promised: bool, is_kept: bool) -> Text:
    return Text("kept" if is_promised else "") if is_kept else Text("broken", style="red")


def _end(document: list[dict[str, Any]], table: Table, *, is_kept: bool) -> None:
    emit(document, lambda: console.print(table))
    if not is_kept:
        raise typer.Exit(FAILED)


def _labels(labels: float) -> str:
    return f"{labels:,.0f} labels" if labels < float("inf") else "-"


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < float("inf") else "-"


if __name__ == "__main__":
    run_command(app)
