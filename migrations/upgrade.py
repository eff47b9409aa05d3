"""Upgrades a database to the newest schema, or says in one sentence why it cannot."""

from __future__ import annotations

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from core.paths import ROOT

# Any number that no other program uses on this database: the ASCII of "sentimnt".
ADVISORY_LOCK = 0x73656E74696D6E74
# While a migration waits for a lock of a table, every later query of the table waits behind it.
LOCK_TIMEOUT = "10s"
PYPROJECT = ROOT / "pyproject.toml"
# PostgreSQL does not answer, is starting or stopping, has no connection left or refuses the login;
# a failing migration raises other errors.
_CONNECTION_FAILURES = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class MigrationError(RuntimeError):
    """The schema cannot be upgraded; the message says why, in one line and without a password."""


class DatabaseUnreachable(MigrationError):
    """PostgreSQL at DATABASE_URL does not answer, or it refuses the connection."""


class UnknownSchema(MigrationError):
    """Another version of this project made the schema, and this one has no migration from it."""


def upgrade(url: URL) -> None:
    """Run every pending migration; several machines may do this at once.

    Raises:
        DatabaseUnreachable: PostgreSQL cannot be reached.
        UnknownSchema: A newer version, or one before 0.1.0, made the schema.
    """
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = url
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        unknown = error.__cause__
        if not isinstance(unknown, ResolutionError):
            raise
        raise UnknownSchema(
            f"The schema of {url.render_as_string()} has the revision {unknown.argument}, which "
            "this version does not know. A newer version made it, or one from before 0.1.0: start "
            "the version that made it."
        ) from error
    except (OSError, DBAPIError) as error:
        reason = error.driver_exception if isinstance(error, DBAPIError) else error
        if not isinstance(reason, _CONNECTION_FAILURES):
            raise
        raise DatabaseUnreachable(
            f"PostgreSQL at {url.render_as_string()} cannot be reached: {reason}"
        ) from error
