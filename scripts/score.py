"""Score the texts of a CSV, JSON lines or Parquet file of any size."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import bentoml
import typer
from rich.console import Console
from rich.markup import escape

from core.command_output import JsonOption, emit, fail
from core.late_packages import REQUIREMENTS, PackagesUnavailable, ensure_packages
from core.settings import Settings, SettingsError, get_settings
from core.signals import sigterm_as_ctrl_c
from core.types import VERSIONS, LongText, Version
from datafiles.chunks import MAX_ROWS, InvalidInput
from datafiles.formats import PYARROW_MB, Format, Input
from runners.engines.choice import EngineUnavailable
from scripts.failures import os_error_line
from scripts.running import run_command

if TYPE_CHECKING:
    from scoring.job import ChunkScorer, Job
    from scoring.journal import Progress

INTERRUPTED = 130
# What may help where no row of a file could be scored.
console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def main(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    source: Annotated[Path, typer.Argument(metavar="IN", help="a file, or - for stdin")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a file, or - for stdout")],
    column: Annotated[str, typer.Option(help="the column of the text")] = "text",
    versions: Annotated[str, typer.Option(help="v1, v2, or both")] = "v1,v2",
    keep: Annotated[
        str | None,
        typer.Option("--id", help="columns of IN to write, with commas", show_default="all"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_ROWS, help="read at most this many rows")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="score again from the first row and replace OUT")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="score on this Ray cluster: host:port or auto"),
    ] = None,
    from_: Annotated[
        Format | None, typer.Option("--from", help="format of IN, whatever its name is")
    ] = None,
    to: Annotated[Format | None, typer.Option(help="format of OUT, whatever its name is")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="of a CSV file, such as ';' or tab", show_default="found")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="of a text file, such as cp1252", show_default="UTF-8, or UTF-16 if found"
        ),
    ] = None,
    long_text: Annotated[
        LongText,
        typer.Option(
            help="a text longer than the model's window: read its beginning (truncate), all of it "
            "in windows (windows), or reject the row (refuse)"
        ),
    ] = "truncate",
    as_served: Annotated[
        bool,
        typer.Option("--as-served", help="use the models that the runners on this machine hold"),
    ] = False,
    *,
    as_json: JsonOption = False,
) -> None:
    """Score the texts of IN and write OUT.

    The names' endings give the formats: .csv, .tsv, .jsonl or .parquet, also with .gz or .zst for
    IN. After an interruption the same command resumes. Rows that cannot be scored go to
    OUT.rejected.jsonl with the reason.
    """
    try:
        ensure_packages(REQUIREMENTS / "score.lock", "scoring files", PYARROW_MB)
    except PackagesUnavailable as error:
        fail(f"not scored: {error}")
    # Imported here because they import what may just have been installed.
    from scoring.job import ClusterFailed, Job, require_scored
    from scoring.journal import CannotResume
    from scoring.paths import input_problem, output_problem
    from scoring.pipes import STDIO, as_files, require_stdio, write_out
    from scoring.reporting import counts
    from scoring.served import NotServed, settings_as_served

    if as_json and out == STDIO:
        raise typer.BadParameter("OUT is stdout already, so --json has nowhere to print")
    if problem := input_problem(source):
        raise typer.BadParameter(problem, param_hint="IN")
    if out != STDIO and (problem := output_problem(out, "; - is stdout")):
        raise typer.BadParameter(problem, param_hint="OUT")
    columns = tuple(dict.fromkeys(keep.split(","))) if keep is not None else None
    sigterm_as_ctrl_c()  # so that the committed rows stay
    resumes = "" if STDIO in {source, out} else "; the same command resumes"
    try:
        require_stdio(source, out)
        formats = from_ or Format.of(source), to or _output_format(out, from_ or Format.of(source))
        chosen = _versions(versions)
        settings = get_settings()
        if as_served:
            settings = settings_as_served(chosen, settings)
        with as_files(source, out) as (read, written):
            given = Input(read, formats[0], encoding, delimiter)
            job = Job(
                given, written, formats[1], column, chosen, columns, limit, restart, long_text
            )
            done = _score(job, settings, ray)
            console.print(escape(f"{'stdout' if out == STDIO else out}: {counts(done)}"))
            rejected = written.with_name(f"{written.name}.rejected.jsonl")
            require_scored(done, written, rejected, given.format)
            if out == STDIO:
                write_out(written, rejected)
        emit(
            {
                "out": out,
                "scored": done.scored,
                "rejected": done.rejected,
                "rejected_rows": rejected.name if done.rejected else None,
            }
        )
    except InvalidInput as error:
        hint = f" (option: {error.option})" if error.option else ""
        fail(f"not scored: {source}: {error}{hint}")
    except (
        CannotResume, EngineUnavailable, NotServed, SettingsError, bentoml.exceptions.NotFound,
    ) as error:  # fmt: skip
        fail(f"not scored: {error}")
    except (OSError, ClusterFailed) as error:
        fail(f"stopped: {_why_stopped(error)}{resumes}")
    except KeyboardInterrupt:
        saved = "the scored rows are saved, and the same command resumes"
        console.print(f"stopped; {saved if resumes else 'nothing was written'}")
        raise typer.Exit(INTERRUPTED) from None


def _why_stopped(error: Exception) -> str:
    reason = None
    if isinstance(error, OSError):
        # A write that fails, as on a full disk, names no file.
        reason = os_error_line(error) if error.filename else error.strerror
    return reason or str(error)


def _score(job: Job, settings: Settings, ray: str | None) -> Progress:
    """Score, and print how the file was read, and with which models."""
    from scoring.job import open_job, score_file
    from scoring.reporting import reporting

    # Before the models are loaded, which takes longer.
    source, _ = open_job(job)
    console.print(escape(f"reading the column {source.column} of {source.description}"))
    with ExitStack() as stack:
        with console.status(f"loading the models{' on the nodes' if ray else ''}"):
            scorer = stack.enter_context(_scorer(job, settings, ray))
        done = score_file(scorer, job, stack.enter_context(reporting(console)))
    for version, identity in scorer.identities.items():
        console.print(escape(f"{version}: {settings.model_tag(version)}, revision {identity}"))
    return done


def _output_format(out: Path, source: Format) -> Format:
    return source if out == Path("-") else Format.of_output(out)


def _scorer(job: Job, settings: Settings, ray: str | None) -> AbstractContextManager[ChunkScorer]:
    from scoring.scorer import Scorer, load_models, streams_of

    if ray is None:
        models, streams = load_models(job.versions, settings), streams_of(settings)
        return Scorer(models, streams=streams, long_text=job.long_text)
    try:
        from scoring.cluster import models_on, scorer_on
    except ModuleNotFoundError as error:
        message = "install Ray first: pip install ray"
        raise typer.BadParameter(message, param_hint="--ray") from error
    return scorer_on(ray, models_on(job.versions, settings), job.long_text)


def _versions(text: str) -> tuple[Version, ...]:
    requested = [name.strip() for name in text.split(",")]
    known = tuple(version for version in VERSIONS if version in requested)
    if len(known) != len(requested):
        raise typer.BadParameter("write v1, v2 or v1,v2", param_hint="--versions")
    return known


if __name__ == "__main__":
    run_command(main)
