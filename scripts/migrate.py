"""Bring the database of DATABASE_URL, or the private one, to the newest schema."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from core.command_output import JsonOption, console, emit, note
from migrations.compatibility import read_stamp
from migrations.upgrade import WAIT_SECONDS, upgrade
from scripts.running import run_command
from serving.command_settings import settings_for_databases


def main(
    *,
    wait_seconds: Annotated[
        float, typer.Option(help="wait so long for a PostgreSQL that is not up yet")
    ] = WAIT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Bring the database to the newest schema, once it answers.

    Safe at any time, from several machines at once, while the service runs.
    """
    url = settings_for_databases().sqlalchemy_url()
    upgrade(url, wait_seconds=wait_seconds, report=note)
    database, revision = url.render_as_string(), asyncio.run(read_stamp(url)).revision
    done = f"the schema of {database} has migration {revision}"
    emit({"database": database, "revision": revision}, lambda: console.print(done))


if __name__ == "__main__":
    run_command(main)
