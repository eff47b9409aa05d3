"""Score the texts of a CSV, JSON lines or Parquet file of any size."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from core.settings import Settings, get_settings
from core.signals import sigterm_as_ctrl_c
from core.types import VERSIONS, Version
from runners.engines.choice import EngineUnavailable
from scoring.chunks import InvalidInput
from scoring.job import Job, Report, score_file, score_file_with
from scoring.journal import CannotResume, Progress
from scoring.scorer import load_models, streams_of

INTERRUPTED = 130
_LINE_SECONDS = 10.0
_COLUMNS = (TextColumn("scoring"), BarColumn(), TextColumn("{task.description}"))

console = Console(stderr=True, highlight=False)


def main(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    source: Annotated[Path, typer.Argument(metavar="IN", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", dir_okay=False)],
    column: Annotated[str, typer.Option(help="the column of the text")] = "text",
    versions: Annotated[str, typer.Option(help="v1, v2, or both")] = "v1,v2",
    keep: Annotated[
        str | None,
        typer.Option("--id", help="columns of IN to write, with commas [default: all]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="read at most this many rows")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="score again from the first row and replace OUT")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="score on this Ray cluster: host:port or auto"),
    ] = None,
) -> None:
    """Score the texts of IN and write OUT.

    The names' endings give the formats: .csv, .jsonl or .parquet. After an interruption the same
    command resumes. Rows that cannot be scored go to OUT.rejected.jsonl with the reason.
    """
    columns = tuple(dict.fromkeys(keep.split(","))) if keep is not None else None
    job = Job(source, out, column, _versions(versions), columns, limit, restart)
    settings = get_settings()
    sigterm_as_ctrl_c()  # so that the committed rows stay
    try:
        done = _score_here(job, settings) if ray is None else _score_on(ray, job, settings)
    except (InvalidInput, CannotResume, EngineUnavailable, bentoml.exceptions.NotFound) as error:
        console.print(f"[bold red]not scored:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except OSError as error:
        console.print(f"[bold red]stopped:[/] {escape(str(error))}; the same command resumes")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; the scored rows are saved, and the same command resumes")
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"{out}: {_counts(done)}")


def _score_here(job: Job, settings: Settings) -> Progress:
    with console.status("loading the models"):
        models = load_models(job.versions, settings)
    with _reporting() as report:
        return score_file(job, models, report, streams=streams_of(settings))


def _score_on(address: str, job: Job, settings: Settings) -> Progress:
    try:
        from scoring.cluster import ClusterFailed, models_on, scorer_on
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            "install Ray first: pip install ray", param_hint="--ray"
        ) from error
    load = models_on(job.versions, settings)
    try:
        with ExitStack() as stack:
            with console.status("loading the models on the nodes"):
                scorer = stack.enter_context(scorer_on(address, load))
            report = stack.enter_context(_reporting())
            return score_file_with(scorer, job, scorer.identities, report)
    except ClusterFailed as error:
        console.print(f"[bold red]stopped:[/] {escape(str(error))}; the same command resumes")
        raise typer.Exit(1) from error


def _versions(text: str) -> tuple[Version, ...]:
    requested = [name.strip() for name in text.split(",")]
    known = tuple(version for version in VERSIONS if version in requested)
    if len(known) != len(requested):
        raise typer.BadParameter("write v1, v2 or v1,v2", param_hint="--versions")
    return known


def _counts(progress: Progress) -> str:
    rejected = f", {progress.rejected:,} rejected" if progress.rejected else ""
    return f"{progress.scored:,} rows scored{rejected}"


@contextmanager
def _reporting() -> Iterator[Report]:
    """Show a bar on a terminal, and elsewhere a line every ten seconds."""
    started = time.perf_counter()
    first: tuple[int, float] | None = None
    last_line = started

    def line(progress: Progress, fraction: float) -> str:
        nonlocal first
        first = first or (progress.end.rows, fraction)
        seconds = time.perf_counter() - started
        rate = (progress.end.rows - first[0]) / seconds
        text = f"{_counts(progress)}, {fraction:.1%}"
        if fraction > first[1]:
            left = seconds * (1 - fraction) / (fraction - first[1])
            text += f", {rate:,.0f} rows/s, {_duration(left)} left"
        return text

    def report(progress: Progress, fraction: float) -> None:
        nonlocal last_line
        text = line(progress, fraction)
        if time.perf_counter() - last_line >= _LINE_SECONDS:
            last_line = time.perf_counter()
            print(text, file=sys.stderr, flush=True)

    if not console.is_terminal:
        yield report
        return
    with Bar(*_COLUMNS, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda progress, fraction: bar.update(
            task, completed=fraction, description=line(progress, fraction)
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


if __name__ == "__main__":
    typer.run(main)
