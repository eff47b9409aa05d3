"""Brings a database to the newest schema."""

from __future__ import annotations

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from core.paths import ROOT

PYPROJECT = ROOT / "pyproject.toml"
# Nobody answers there, or does not let us in; what a migration itself meets is none of these.
_CONNECTION_FAILURES = (
    OSError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class DatabaseUnreachable(RuntimeError):
    """There is no PostgreSQL at DATABASE_URL, or it does not let us in."""


def upgrade(url: URL) -> None:
    """Run every migration that `url` has not had. Safe to run from several machines at once.

    Raises:
        DatabaseUnreachable: the message says where and why, without a password.
    """
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = url
    try:
        command.upgrade(config, "head")
    except (OSError, DBAPIError) as error:
        reason = error.driver_exception if isinstance(error, DBAPIError) else error
        if not isinstance(reason, _CONNECTION_FAILURES):
            raise
        raise DatabaseUnreachable(f"DATABASE_URL, {url.render_as_string()}: {reason}") from error
