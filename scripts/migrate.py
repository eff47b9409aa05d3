"""Brings the database of DATABASE_URL to the newest schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from settings import get_settings

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def upgrade(url: URL) -> None:
    """Run every migration that `url` has not had. Safe to run from several machines at once."""
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = url
    command.upgrade(config, "head")


if __name__ == "__main__":
    upgrade(get_settings().sqlalchemy_url())
