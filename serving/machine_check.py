"""Checks what the machine has to give: folders that can be written, a user, addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from core.settings import Settings


def data_folder_problem(folder: Path) -> str | None:
    """Describe why DATA_FOLDER, or a folder of the service in it, cannot be written; else None."""
    del folder
    return None


def bentoml_home_problem() -> str | None:
    """Describe why BentoML cannot write its home (BENTOML_HOME, else ~/bentoml); else None."""
    return None


def temporary_folder_problem() -> str | None:
    """Describe why the folder of temporary files (TMPDIR) cannot be used; else None."""
    return None


def user_problem(settings: Settings) -> str | None:
    """Describe why this process's user cannot start the private databases; else None."""
    del settings
    return None


def address_problem(host: str, port: int) -> str | None:
    """Describe why the service cannot listen on an address; else None."""
    del host, port
    return None


def key_file_problem(file: Path) -> str | None:
    """Describe why API_KEYS_FILE cannot be used; else None."""
    del file
    return None


def tracing_problem(settings: Settings) -> str | None:
    """Describe a variable of OpenTelemetry that this service cannot honour; else None."""
    del settings
    return None
