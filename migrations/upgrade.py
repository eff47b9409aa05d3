"""Upgrades a database to the newest schema, or says in one sentence why it cannot."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from core.command_output import CommandFailed
from core.postgres import (
    DATABASE_FAILURES,
    create_engine,
    describe_failure,
    encoding_problem,
    failure_reason,
)
from migrations.compatibility import PYPROJECT, known_revisions, read_stamp

# Any number that no other program uses on this database: the ASCII of "sentimnt".
ADVISORY_LOCK = 0x73656E74696D6E74
# While a migration waits for a lock of a table, every later query of the table waits behind it.
LOCK_TIMEOUT = "10s"
# A PostgreSQL that starts beside the service takes seconds, or a minute if it has to recover.
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0
# PostgreSQL has no port yet, has no name yet, is starting or stopping, or has no connection left.
_LATE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)


class MigrationError(CommandFailed):
    """The schema cannot be upgraded; the message says why, in one line and without a password."""


class DatabaseUnreachable(MigrationError):
    """PostgreSQL at DATABASE_URL does not answer, or it refuses the connection."""


class UnknownSchema(MigrationError):
    """Another version of this project made the schema, and this one has no migration from it."""


class RefusedMigration(MigrationError):
    """PostgreSQL refuses a migration, mostly for lack of a right, or cannot hold every text."""


def upgrade(
    url: URL, *, wait_seconds: float = 0.0, report: Callable[[str], None] | None = None
) -> None:
    """Run every pending migration; several machines may do this at once.

    A schema of a newer release that this one may serve stays as it is; `report` gets a line.
    Waits `wait_seconds` for a PostgreSQL that is not up yet, and reports that it does.

    Raises:
        DatabaseUnreachable: PostgreSQL cannot be reached.
        UnknownSchema: A newer version whose schema this one cannot serve, or one before 0.1.0,
            made the schema.
        RefusedMigration: PostgreSQL refuses a migration, or has another encoding than UTF-8.
    """
    asyncio.run(_wait_until_it_answers(url, wait_seconds, report or _report))
    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = url
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        unknown = error.__cause__
        if not isinstance(unknown, ResolutionError):
            raise
        if asyncio.run(read_stamp(url)).serves_since in known_revisions():
            (report or _report)(
                f"The schema has the revision {unknown.argument} of a newer version, which serves "
                "this version too; it stays as it is"
            )
            return
        raise UnknownSchema(
            f"The schema of {url.render_as_string()} has the revision {unknown.argument}, which "
            "this version does not know. A newer version made it, or one from before 0.1.0: start "
            "the version that made it."
        ) from error
    except DATABASE_FAILURES as error:
        raise RefusedMigration(
            f"PostgreSQL at {url.render_as_string()} refuses the migration: "
            f"{describe_failure(error)}{_hint(error)}"
        ) from error


def _hint(error: BaseException) -> str:
    reason = error.driver_exception if isinstance(error, DBAPIError) else error
    if isinstance(reason, (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)):
        return (
            ". The role needs rights on the schema (GRANT USAGE, CREATE ON SCHEMA public TO role), "
            "or run `make migrate` as the owner of the database"
        )
    if isinstance(reason, asyncpg.ReadOnlySQLTransactionError):
        return ". It is a replica or read-only: name the primary in DATABASE_URL"
    if isinstance(reason, asyncpg.DuplicateTableError):
        return ". Another program has tables in this schema: give the service a database of its own"
    return ""


async def _wait_until_it_answers(
    url: URL, wait_seconds: float, report: Callable[[str], None]
) -> None:
    engine = create_engine(url, pool_size=1, timeout_seconds=CONNECT_SECONDS)
    name = url.render_as_string()
    end, has_reported = time.monotonic() + wait_seconds, False
    try:
        while True:
            try:
                async with engine.connect() as connection:
                    encoding = await connection.scalar(text("SHOW server_encoding"))
                    break
            except DATABASE_FAILURES as error:
                reason = error.driver_exception if isinstance(error, DBAPIError) else error
                if not isinstance(reason, _LATE) or time.monotonic() >= end:
                    raise DatabaseUnreachable(
                        f"PostgreSQL at {name} cannot be reached: {failure_reason(error)}"
                    ) from error
                if not has_reported:
                    report(
                        f"PostgreSQL at {name} does not answer yet ({failure_reason(error)}); "
                        f"waiting for it for {wait_seconds:.0f} s at most"
                    )
                    has_reported = True
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await engine.dispose()
    if problem := encoding_problem(encoding):
        raise RefusedMigration(f"PostgreSQL at {name}: {problem}")


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
