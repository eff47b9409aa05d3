"""Bring the database of DATABASE_URL to the newest schema."""

from __future__ import annotations

import argparse
import sys

from core.settings import SettingsError, get_settings
from migrations.upgrade import WAIT_SECONDS, MigrationError, upgrade


def main() -> None:
    """Bring the database of DATABASE_URL to the newest schema."""
    try:
        upgrade(get_settings().sqlalchemy_url(), wait_seconds=WAIT_SECONDS)
    except (SettingsError, MigrationError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    # The image runs this file, and has no typer.
    argparse.ArgumentParser("python -m scripts.migrate", description=__doc__).parse_args()
    main()
