"""The private databases of a demonstration, with its invented history in them."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from core.command_output import CommandFailed
from core.settings import get_settings
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
from serving.embedded.start import console, migrate, step

# Written last: without it, the history is not whole.
WHOLE = "filled"


def start_databases(folder: Path, running: ExitStack, *, max_memory: str) -> dict[str, str]:
    """Start the databases, with the history in them; returns the settings that lead to them."""
    if not (folder / WHOLE).exists():
        remove_data(folder, quiet=True)
    with step("postgresql", f"private, of the demonstration, in {folder}"):
        url = running.enter_context(embedded_postgres(folder / "postgres", restart=True))
    migrate(url)
    if not (folder / WHOLE).exists():
        # Imported here: a later start needs none of it.
        from loadtest.demo import fill, saved_models

        with step("history", "a fortnight of invented traffic"):
            asyncio.run(fill(url, saved_models(get_settings()), datetime.now(UTC)))
        (folder / WHOLE).touch()
    return {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "REDIS_URL": running.enter_context(
            embedded_redis(folder / "redis", max_memory=max_memory, restart=True)
        ),
        "DATA_FOLDER": str(folder),
    }


def remove_data(folder: Path, *, quiet: bool = False) -> None:
    """Remove the folder of a demonstration, and say so.

    Raises:
        CommandFailed: a link is in its place, and what it leads to is somebody else's.
    """
    if folder.is_symlink():
        raise CommandFailed(f"{folder} is a link; remove it, or name another DATA_FOLDER")
    if folder.exists():
        shutil.rmtree(folder)
        if not quiet:
            console.print(f"{folder} is removed", soft_wrap=True)
    elif not quiet:
        console.print("there is no demonstration to remove")
