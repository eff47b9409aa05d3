"""Work on the prediction log's files on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from core.command_output import (
    FAILED,
    INCOMPLETE,
    JsonOption,
    console,
    emit,
    fail,
    note,
    slow_step,
)
from core.errors import describe_error
from core.setting_checks import check_sinks
from core.settings import get_settings
from scripts.running import run_command
from serving.command_settings import settings_for_databases

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Work on the prediction log's files on this machine."""


@app.command()
def retry(
    *,
    folder: Annotated[
        Path | None,
        Option(
            help="a spool, or the DATA_FOLDER with it",
            show_default="DATA_FOLDER/spool",
            file_okay=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let the service try the lines in rejected.jsonl once more.

    They wait for PostgreSQL again, also if the service starts later. Lines that are refused again
    come back to rejected.jsonl with the new reason; a line that PostgreSQL has is not stored twice.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.log.rejected import REJECTED, put_back
    from analytics.log.shipment import NoSpool, spool_in

    try:
        spool = spool_in(folder) if folder else get_settings().spool_folder()
        result = put_back(spool)
    except NoSpool as error:
        fail(str(error))
    except OSError as error:
        fail(f"{spool / REJECTED} stays as it is: {describe_error(error)}")

    def show() -> None:
        console.print(f"{result.lines} lines of {spool / REJECTED} wait for PostgreSQL again.")
        if result.unreadable:
            console.print(f"{result.unreadable} lines stay: this release cannot read them.")

    emit(result, show)


@app.command()
def ship(
    folder: Annotated[
        Path, Argument(help="a spool, or the DATA_FOLDER with it", file_okay=False, exists=True)
    ],
    *,
    wait_seconds: Annotated[
        float, Option(min=1.0, help="give up when PostgreSQL has stored nothing for so long")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Ship the predictions that a stopped service left in a folder to DATABASE_URL.

    Each is stored once, also if the service or an earlier run has stored some of them. The sinks of
    LOG_EVENTS_URL and LOG_PARQUET_URL get what they lack. Exits with 1 if predictions are left, and
    with 3 if only lines in rejected.jsonl are left.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.log.rejected import REJECTED
    from analytics.log.shipment import KeyElsewhere, NoSpool, SpoolInUse, ship_folder

    settings = settings_for_databases()
    url, hash_keys = settings.sqlalchemy_url(), settings.hash_keys()
    check_sinks(settings)
    try:
        with slow_step(f"shipping {folder}"):
            result = asyncio.run(
                ship_folder(folder, url, hash_keys, wait_seconds=wait_seconds, settings=settings)
            )
    except (KeyElsewhere, NoSpool, SpoolInUse) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder} cannot be shipped: {describe_error(error)}")

    def show() -> None:
        console.print(f"{result.stored} predictions of {result.folder} are in PostgreSQL now")
        console.print(f"{result.rejected} lines were set aside now")
        console.print(f"{result.left} predictions are left")

    emit(result, show)
    if result.rejected_lines:
        note(
            f"{result.rejected_lines} lines in {Path(result.folder) / REJECTED} are not stored: "
            f"each has its reason; `sentiment log retry --folder {result.folder}` lets the next "
            "run try them again"
        )
    if result.reason:
        note(f"{result.segments_left} segments are left: {result.reason}")
    if result.other_database:
        note(
            f"what waited in {result.folder} may be of a service that stored in another database, "
            f"{result.other_database}"
        )
    for name in result.other_sinks:
        note(f"the sink {name} is not configured here: what it lacks waits in the spool")
    for sink, left in result.sinks_left.items():
        if left:
            note(f"{left} predictions wait for the sink {sink}, which did not take them")
    if result.reason or any(result.sinks_left.values()):
        raise typer.Exit(FAILED)
    if result.rejected_lines:
        raise typer.Exit(INCOMPLETE)


if __name__ == "__main__":
    run_command(app)
