"""Work on the prediction log's files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from core.errors import describe_error
from core.settings import get_settings
from scripts.running import run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Work on the prediction log's files on this machine."""


@app.command()
def retry(
    folder: Annotated[
        Path | None, Option(help="the spool [default: DATA_FOLDER/spool]", file_okay=False)
    ] = None,
) -> None:
    """Let the service try the lines in rejected.jsonl once more.

    They wait for PostgreSQL again, also if the service starts later. Lines that are refused again
    come back to rejected.jsonl with the new reason; a line that PostgreSQL has is not stored twice.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.log.rejected import REJECTED, put_back

    spool = folder or get_settings().spool_folder()
    try:
        result = put_back(spool)
    except OSError as error:
        typer.echo(f"{spool / REJECTED} stays as it is: {describe_error(error)}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{result.lines} lines of {spool / REJECTED} wait for PostgreSQL again.")
    if result.unreadable:
        typer.echo(f"{result.unreadable} lines stay, because this release cannot read them.")


if __name__ == "__main__":
    run_command(app)
