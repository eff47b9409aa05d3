"""Serve a demonstration: invented traffic, an A/B test, a rollout, in databases of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from core.setting_checks import settings_for_serving
from core.settings import get_settings
from loadtest.demo_databases import remove_data, start_databases
from scripts.running import run_command
from serving.embedded.children import UnusableFolder
from serving.embedded.launcher import launch
from serving.embedded.starters import save_missing_models

FOLDER = "demo"
LOCK = "demo.lock"


def main(
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="the port to listen on", show_default="PORT"),
    ] = None,
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
                remove_data(folder)
                return
            save_missing_models(settings)
            environment = start_databases(folder, running, max_memory=settings.redis_max_memory)
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


if __name__ == "__main__":
    run_command(main)
