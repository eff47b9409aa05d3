"""Score the texts of a CSV, JSON lines or Parquet file of any size."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import bentoml
import typer
from rich.console import Console
from rich.markup import escape

from core.late_packages import REQUIREMENTS, PackagesUnavailable, ensure_packages
from core.settings import Settings, get_settings
from core.signals import sigterm_as_ctrl_c
from core.types import VERSIONS, Version
from runners.engines.choice import EngineUnavailable

if TYPE_CHECKING:
    from scoring.job import ChunkScorer, Job

# As Linux on x86 downloads it.
PYARROW_MB = 55
INTERRUPTED = 130

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
    try:
        ensure_packages(REQUIREMENTS / "score.lock", "scoring files", PYARROW_MB)
    except PackagesUnavailable as error:
        console.print(f"[bold red]not scored:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    # Imported here because they import what may just have been installed.
    from datafiles.chunks import InvalidInput
    from scoring.job import ClusterFailed, Job, score_file
    from scoring.journal import CannotResume
    from scoring.reporting import counts, reporting

    columns = tuple(dict.fromkeys(keep.split(","))) if keep is not None else None
    job = Job(source, out, column, _versions(versions), columns, limit, restart)
    settings = get_settings()
    sigterm_as_ctrl_c()  # so that the committed rows stay
    try:
        with ExitStack() as stack:
            with console.status(f"loading the models{' on the nodes' if ray else ''}"):
                scorer = stack.enter_context(_scorer(job, settings, ray))
            done = score_file(scorer, job, stack.enter_context(reporting(console)))
    except (InvalidInput, CannotResume, EngineUnavailable, bentoml.exceptions.NotFound) as error:
        console.print(f"[bold red]not scored:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except (OSError, ClusterFailed) as error:
        console.print(f"[bold red]stopped:[/] {escape(str(error))}; the same command resumes")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; the scored rows are saved, and the same command resumes")
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"{out}: {counts(done)}")


def _scorer(job: Job, settings: Settings, ray: str | None) -> AbstractContextManager[ChunkScorer]:
    from scoring.scorer import Scorer, load_models, streams_of

    if ray is None:
        return Scorer(load_models(job.versions, settings), streams=streams_of(settings))
    try:
        from scoring.cluster import models_on, scorer_on
    except ModuleNotFoundError as error:
        message = "install Ray first: pip install ray"
        raise typer.BadParameter(message, param_hint="--ray") from error
    return scorer_on(ray, models_on(job.versions, settings))


def _versions(text: str) -> tuple[Version, ...]:
    requested = [name.strip() for name in text.split(",")]
    known = tuple(version for version in VERSIONS if version in requested)
    if len(known) != len(requested):
        raise typer.BadParameter("write v1, v2 or v1,v2", param_hint="--versions")
    return known


if __name__ == "__main__":
    typer.run(main)
