"""Checks a PostgreSQL before the service uses it: its version, its kind and the role's rights."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

TIMEOUT_SECONDS = 5.0
# The oldest that has date_bin(), of which the rollups are made.
MIN_VERSION = 14
TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TABLES = """
SELECT
    name,
    to_regclass(name) IS NOT NULL AS is_there,
    (
        SELECT right_ FROM unnest(CAST(:rights AS text[])) WITH ORDINALITY AS rights(right_, place)
        WHERE NOT has_table_privilege(to_regclass(name)::oid, right_)
        ORDER BY place LIMIT 1
    ) AS missing_right,
    EXISTS (
        SELECT FROM pg_index WHERE indrelid = to_regclass(name) AND indisprimary AND indisvalid
    ) AS has_key
FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS tables(name, place)
ORDER BY place
"""
# The partitions of these days have to be there, or have to be made.
DAYS_NEEDED = 2


class UnusableDatabase(ValueError):
    """The service can never work with this database; the message is one line."""


def database_problem(url: URL, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Describe in one line why the service cannot use this database; None if it can."""
    try:
        return database_fault(url, timeout_seconds=timeout_seconds)
    except UnusableDatabase as error:
        return str(error)


def database_fault(url: URL, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Describe a fault that may heal while the service runs; None if there is none.

    Raises:
        UnusableDatabase: the fault is none that heals.
    """
    return asyncio.run(_fault(url, timeout_seconds))


async def _fault(url: URL, timeout_seconds: float) -> str | None:
    # Imported here: the manager of the processes needs them for a moment only.
    from core.postgres import DATABASE_FAILURES, failure_reason, opened_engine

    name = url.render_as_string()
    try:
        async with (
            opened_engine(url, timeout_seconds=timeout_seconds) as engine,
            asyncio.timeout(2 * timeout_seconds),
            engine.connect() as connection,
        ):
            problem = await _problem_of(connection)
    except DATABASE_FAILURES as error:
        return f"PostgreSQL at {name} cannot be reached: {failure_reason(error)}"
    return problem and f"PostgreSQL at {name}: {problem}"


async def _problem_of(connection: AsyncConnection) -> str | None:
    from sqlalchemy import text

    from core.postgres import encoding_problem

    async def value(expression: str, **parameters: object) -> object:
        return await connection.scalar(text(f"SELECT {expression}"), parameters)

    number = int(str(await value("current_setting('server_version_num')")))
    problem = version_problem(number, await value("current_setting('server_version')"))
    if problem := problem or encoding_problem(await value("current_setting('server_encoding')")):
        raise UnusableDatabase(
            f"PostgreSQL at {connection.engine.url.render_as_string()}: {problem}"
        )
    if await value("pg_is_in_recovery()"):
        return "it is a replica, which stores nothing; name the primary"
    if await value("current_setting('default_transaction_read_only')") == "on":
        return "its sessions are read-only (default_transaction_read_only), so nothing is stored"
    role = await value("quote_ident(current_user)")
    if not await value("has_database_privilege(current_database(), 'TEMP')"):
        return (
            f"the role {role} may not create temporary tables, through which predictions are "
            "stored; run GRANT TEMPORARY ON DATABASE "
            f"{await value('quote_ident(current_database())')} TO {role}"
        )
    problem = await _missing_right(connection, str(role))
    if problem is None and await value("current_setting('fsync')") == "off":
        return "fsync is off, so that a crash of its machine loses what it has stored; set it to on"
    return problem


def version_problem(number: int, version: object) -> str | None:
    """Describe why the service does not work with a version; `number` is server_version_num."""
    if number >= MIN_VERSION * 10_000:
        return None
    return f"it is version {version}, and the service needs {MIN_VERSION} or later"


async def _missing_right(connection: AsyncConnection, role: str) -> str | None:
    from sqlalchemy import text

    # Both declare their tables.
    import rollout.tables  # noqa: F401
    from analytics.partitions import may_make_partitions, uncovered_days
    from core.postgres import metadata

    async def has(expression: str) -> bool:
        return bool(await connection.scalar(text(f"SELECT {expression}")))

    schema = await connection.scalar(text("SELECT current_schema()"))
    may_create = schema is not None and await has(
        "has_schema_privilege(current_schema(), 'CREATE')"
    )
    if not await has("to_regclass('predictions') IS NOT NULL"):
        return _missing_tables(role, schema, may_create=may_create)
    found = await connection.execute(
        text(_TABLES), {"names": list(metadata.tables), "rights": list(TABLE_RIGHTS)}
    )
    for table, is_there, missing_right, has_key in found:
        if not is_there:
            return f"it has no table {table}; run `make migrate`"
        if missing_right:
            return (
                f"the role {role} lacks the right {missing_right} on the table {table}; run GRANT "
                f"{', '.join(TABLE_RIGHTS)} ON ALL TABLES IN SCHEMA {schema} TO {role}"
            )
        if metadata.tables[table].primary_key.columns and not has_key:
            return (
                f"the table {table} has lost its primary key, as in a restore that was broken off, "
                "so that nothing is stored; restore the backup again"
            )
    today = datetime.now(UTC).date()
    days = [today + timedelta(days=ahead) for ahead in range(DAYS_NEEDED)]
    if not await may_make_partitions(connection) and await uncovered_days(connection, days):
        return (
            f"the role {role} may not make the partition of a day: it has to own the table "
            f"predictions and to have the right CREATE on the schema {schema}; or make the "
            "partitions yourself, for example a DEFAULT one"
        )
    return None


def _missing_tables(role: str, schema: object, *, may_create: bool) -> str:
    if may_create:
        return "it has no tables of the service; run `make migrate`"
    if schema is None:
        return (
            f"the role {role} may use no schema of its search_path; run GRANT USAGE, CREATE ON "
            f"SCHEMA public TO {role}"
        )
    return (
        f"the role {role} may not create tables in the schema {schema}; run GRANT CREATE ON "
        f"SCHEMA {schema} TO {role}, or run `make migrate` as the owner"
    )
