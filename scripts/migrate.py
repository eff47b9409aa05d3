"""Brings the database of DATABASE_URL to the newest schema."""

from __future__ import annotations

import sys

from core.settings import SettingsError, get_settings
from migrations.upgrade import DatabaseUnreachable, upgrade


def main() -> int:
    try:
        upgrade(get_settings().sqlalchemy_url())
    except (SettingsError, DatabaseUnreachable) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
