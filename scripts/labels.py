"""Export the true labels of predictions, and import labelled sets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from core.command_output import INCOMPLETE, JsonOption, console, emit, fail, note
from core.counted import counted
from core.types import Version
from scripts.running import run_command
from scripts.time_range_options import parse_span

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from core.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
SHOWN_FAULTS = 20

SinceOption = Annotated[str, Option("--since", help="ISO 8601 with an offset, or as in 7d")]
UntilOption = Annotated[str | None, Option("--until", help="as --since", show_default="now")]


@app.callback()
def main() -> None:
    """Export the true labels of predictions, and import labelled sets."""


@app.command()
def export(
    *,
    file: Annotated[Path, Argument(help=".csv, .tsv, .jsonl or .parquet", dir_okay=False)],
    since: SinceOption = "30d",
    until: UntilOption = None,
    version: Annotated[Version | None, Option(help="only of this version")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the newest label of each prediction made in a range, with its text if it is kept.

    `probability` is that with which the review queue chose the prediction; empty for the others.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.feedback.labelled_sets import COLUMNS, labelled_rows
    from datafiles.chunks import InvalidInput
    from datafiles.formats import Format
    from datafiles.row_writer import write_rows
    from scoring.paths import output_problem

    if problem := output_problem(file):
        raise typer.BadParameter(problem, param_hint="FILE")
    span = parse_span(since, until)
    try:
        format_ = Format.of_output(file)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error
    _need_pyarrow(wanted=format_ is Format.parquet)

    async def run(engine: AsyncEngine, _settings: Settings) -> list[Any]:
        return [row async for row in labelled_rows(engine, span, version)]

    written = write_rows(file, format_, COLUMNS, _run(run))
    emit({"labels": written}, lambda: console.print(f"{file} has {counted(written, 'label')}"))


@app.command("import")
def import_(
    *,
    file: Annotated[Path, Argument(help="CSV, JSON lines or Parquet", dir_okay=False, exists=True)],
    since: SinceOption = "30d",
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the labels of a file to the predictions of its column prediction_id, or else text.

    A row needs `label`, and `prediction_id` or `text`; `labelled_at` is now if it is absent. By
    text, the predictions from --since to --until get the label, if TEXT_STORAGE is full or hash.
    Exits with 3 if rows are refused: each is told with its reason, and the others are stored.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.feedback.label_file import read_labels
    from analytics.feedback.labelled_sets import Imported, import_labels
    from analytics.hash_keys import HashKeys
    from datafiles.chunks import InvalidInput
    from datafiles.formats import Format, Input, needs_pyarrow
    from datafiles.pipes import as_regular_file

    span = parse_span(since, until)
    try:
        with as_regular_file(file) as regular:
            source = Input(regular, Format.of(file))
            _need_pyarrow(wanted=needs_pyarrow(source))
            labels, refused = read_labels(source, datetime.now(UTC))
    except (InvalidInput, OSError) as error:
        fail(f"{file} cannot be used: {error}")

    async def run(engine: AsyncEngine, settings: Settings) -> Imported:
        hashes = HashKeys(settings.hash_keys())
        return await import_labels(engine, hashes, labels, span)

    imported: Imported = _run(run)
    faults = sorted([*refused, *imported.refused])

    def show() -> None:
        labelled = counted(imported.labelled, "prediction")
        console.print(f"{file} has the labels of {labelled}, {imported.changed} of them new")
        for fault in faults[:SHOWN_FAULTS]:
            note(f"line {fault.line}: {fault.reason}")
        if len(faults) > SHOWN_FAULTS:
            note(f"and {len(faults) - SHOWN_FAULTS} more; --json lists all")

    refusals = [{"line": fault.line, "reason": fault.reason} for fault in faults]
    counts = {"labelled": imported.labelled, "changed": imported.changed}
    emit({**counts, "refused": refusals}, show)
    if faults:
        raise typer.Exit(INCOMPLETE)


def _need_pyarrow(*, wanted: bool) -> None:
    if wanted:
        from core.late_packages import REQUIREMENTS, ensure_packages
        from datafiles.formats import PYARROW_MB

        ensure_packages(REQUIREMENTS / "score.lock", "Parquet and zstd", PYARROW_MB)


def _run(run: Callable[[AsyncEngine, Settings], Awaitable[Any]]) -> Any:
    from core.command_database import DatabaseFailed, run_with_engine
    from serving.command_settings import settings_for_databases

    settings = settings_for_databases()
    url = settings.sqlalchemy_url()
    try:
        # Texts are found by reading all predictions of the range, which takes as long as it takes.
        return run_with_engine(url, lambda engine: run(engine, settings), timeout_seconds=None)
    except DatabaseFailed as error:
        fail(f"PostgreSQL does not answer: {error}. Run the command again")


if __name__ == "__main__":
    run_command(app)
