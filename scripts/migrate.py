"""Bring the database of DATABASE_URL to the newest schema."""

from __future__ import annotations

import argparse
import sys

from core.settings import SettingsError, get_settings
from migrations.upgrade import WAIT_SECONDS, MigrationError, upgrade
from scripts.failures import failures_as_lines


def main(wait_seconds: float = WAIT_SECONDS) -> None:
    """Bring the database of DATABASE_URL to the newest schema, once it answers."""
    try:
        upgrade(get_settings().sqlalchemy_url(), wait_seconds=wait_seconds)
    except (SettingsError, MigrationError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    # argparse is imported faster than typer.
    parser = argparse.ArgumentParser("python -m scripts.migrate", description=__doc__)
    parser.add_argument("--wait-seconds", type=float, default=WAIT_SECONDS)
    arguments = parser.parse_args()
    with failures_as_lines():
        main(arguments.wait_seconds)
