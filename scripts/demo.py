"""Serve a demonstration: invented traffic, an A/B test, a rollout, in databases of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from core.setting_checks import settings_for_serving
from core.settings import get_settings
from scripts.running import run_command
from serving.embedded.children import UnusableFolder
from serving.embedded.launcher import launch
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
from serving.embedded.start import console, migrate, step
from serving.embedded.starters import save_missing_models

FOLDER = "demo"
LOCK = "demo.lock"
# Written last: without it, the history is not whole.
WHOLE = "filled"


def main(
    *,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: PORT]")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Delete its data and exit.")] = False,
) -> None:
    """Serve a fortnight of invented traffic until Ctrl-C.

    Its PostgreSQL and Redis are private ones under DATA_FOLDER/demo, whatever DATABASE_URL and
    REDIS_URL say. The history ends when it is made, at the first start.
    """
    settings = settings_for_serving()
    folder = settings.data_folder / FOLDER
    # A PostgreSQL that is not root's has to pass through.
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(LOCK), timeout=0, mode=0o600), ExitStack() as running:
            if remove:
                _remove(folder)
                return
            save_missing_models(settings)
            environment = _start(folder, running, max_memory=settings.redis_max_memory)
            if port is not None:
                environment["PORT"] = str(port)
            # The workers read their settings from the environment, and outweigh `.env` with it.
            os.environ.update(environment)
            get_settings.cache_clear()
            launch()
    except Timeout:
        raise SystemExit(f"another `sentiment demo` uses {folder}; stop it first") from None
    except UnusableFolder as error:
        raise SystemExit(str(error)) from None


def _start(folder: Path, running: ExitStack, *, max_memory: str) -> dict[str, str]:
    """Start the databases, with the history in them; the settings that lead to them."""
    if not (folder / WHOLE).exists():
        _remove(folder, quiet=True)
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


def _remove(folder: Path, *, quiet: bool = False) -> None:
    if folder.exists():
        shutil.rmtree(folder)
        if not quiet:
            console.print(f"{folder} is removed", soft_wrap=True)
    elif not quiet:
        console.print("there is no demonstration to remove")


if __name__ == "__main__":
    run_command(main)
