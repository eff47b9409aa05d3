"""The PostgreSQL connection pool, and the errors that count as its failures.

A connection may lead to PostgreSQL itself, or to a pooler such as PgBouncer, which lends a server
for one transaction only. So nothing that the service does in a session may outlive a transaction.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import asyncpg
from sqlalchemy import URL, MetaData, func, select
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from core import metrics
from core.errors import DatabaseUnavailable
from core.postgres_sessions import CONNECT_FAILURES, watch_sessions
from core.printable import printable

# The tables of every room.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# `policy` is apart from `select`, because it runs twice a second and would hide the duration of
# analytics queries.
QueryType = Literal["copy", "insert", "select", "policy", "ping"]

# The errors of an outage, an exhausted pool or a slow answer; COPY raises asyncpg's own errors.
DATABASE_FAILURES = (
    DBAPIError,
    PoolTimeoutError,
    *CONNECT_FAILURES,
)
# The classes of SQLSTATE by which PostgreSQL refuses a value: data exception, constraint violation.
_VALUE_CLASSES = ("22", "23")
# What the driver raises while it encodes a row, and we while we compute one.
_ENCODING_FAILURES = (ArithmeticError, LookupError, TypeError, ValueError)
# Not that of the transaction, which may be long.
_NOW = select(func.clock_timestamp())


def is_value_failure(error: BaseException) -> bool:
    """Whether PostgreSQL or the driver refuses a value, rather than being away or misconfigured."""
    cause = _cause_of(error)
    if isinstance(cause, asyncpg.PostgresError):
        return (cause.sqlstate or "").startswith(_VALUE_CLASSES)
    return isinstance(cause, _ENCODING_FAILURES)


def is_time_out(error: BaseException) -> bool:
    """Whether the client or PostgreSQL gave a statement up because of the time that it took."""
    return isinstance(_cause_of(error), TimeoutError | asyncpg.QueryCanceledError)


def is_missing_right(error: BaseException) -> bool:
    """Whether the role lacks a right."""
    return isinstance(_cause_of(error), asyncpg.InsufficientPrivilegeError)


# A monitor waits no longer than five seconds for an answer to /health.
PING_SECONDS = 2.0
MAX_LOGGED_CHARACTERS = 1_000
# The home of users without one, as Debian calls it.
NO_HOME = "/nonexistent"


def describe_failure(error: BaseException) -> str:
    """A database failure as one line of a log, without the statement and the rows it quotes."""
    cause = _cause_of(error)
    message = _message_of(cause)
    return f"{type(cause).__name__}: {message}" if message else failure_reason(cause)


def failure_reason(error: BaseException) -> str:
    """The reason of a failed connection as part of a sentence."""
    cause = _cause_of(error)
    if isinstance(cause, TimeoutError) and not str(cause):
        return "no answer in time"
    return _message_of(cause) or type(cause).__name__


def _message_of(cause: BaseException) -> str:
    """What it says, in one line of bounded length: the server chooses the words."""
    message = str(cause.args[0] if isinstance(cause, asyncpg.PostgresError) else cause)
    if len(message) > MAX_LOGGED_CHARACTERS:
        message = f"{message[:MAX_LOGGED_CHARACTERS]} …"
    return printable(" ".join(message.split()))


def _cause_of(error: BaseException) -> BaseException:
    """The error of the driver behind SQLAlchemy's."""
    if isinstance(error, StatementError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def encoding_problem(encoding: object) -> str | None:
    """Describe why a database cannot hold every text; None if it can. Nothing heals it."""
    if encoding == "UTF8":
        return None
    return f"the database has the encoding {encoding}; make one with ENCODING 'UTF8'"


def create_engine(url: URL, *, pool_size: int, timeout_seconds: float | None) -> AsyncEngine:
    """Make a pool of `pool_size` connections; waits and statements end after the time-out."""
    _hide_unreadable_home()
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,
        hide_parameters=True,  # in error messages: parameters hold the texts of clients
        # Whatever the database says: what a transaction reads once it has a lock, the one before
        # it has written.
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": timeout_seconds,
            "command_timeout": timeout_seconds,
            # asyncpg's own cache names statements and holds plans of tables that have changed.
            # SQLAlchemy has a cache of its own.
            "statement_cache_size": 0,
            # PgBouncer refuses further settings here.
            "server_settings": {"application_name": "sentiment", "timezone": "UTC"},
        },
    )
    watch_sessions(engine.sync_engine, timeout_seconds)
    return engine


@asynccontextmanager
async def opened_engine(
    url: URL, *, timeout_seconds: float | None, pool_size: int = 1
) -> AsyncIterator[AsyncEngine]:
    """An engine for one task, whose connections are closed when the task has ended."""
    engine = create_engine(url, pool_size=pool_size, timeout_seconds=timeout_seconds)
    try:
        yield engine
    finally:
        await engine.dispose()


def _hide_unreadable_home() -> None:
    """Let asyncpg do without HOME if this user may not enter it.

    asyncpg looks there for a certificate and a password, and a connection would fail although it
    needs neither. It has no argument against that.
    """
    try:
        (Path.home() / ".postgresql" / "postgresql.key").stat()
    except PermissionError:
        os.environ["HOME"] = NO_HOME
    except (OSError, RuntimeError):
        pass


@asynccontextmanager
async def timed(query_type: QueryType) -> AsyncIterator[None]:
    """Count and time one database round trip, failed ones included."""
    started = time.perf_counter()
    try:
        yield
    finally:
        metrics.db_queries.labels(query_type).inc()
        metrics.db_query_duration.labels(query_type).observe(time.perf_counter() - started)


@asynccontextmanager
async def reading(
    engine: AsyncEngine, query_type: QueryType = "select"
) -> AsyncIterator[AsyncConnection]:
    """A connection for a query of a request.

    Raises:
        DatabaseUnavailable: PostgreSQL is down or slow, or all connections are in use.
    """
    try:
        async with timed(query_type), engine.connect() as connection:
            yield connection
    except DATABASE_FAILURES as error:
        raise DatabaseUnavailable("The database cannot answer now; try again") from error


async def server_now(connection: AsyncConnection) -> datetime:
    """The time by PostgreSQL's clock, in UTC."""
    now: datetime = (await connection.execute(_NOW)).scalar_one()
    return now.astimezone(UTC)


async def connected(engine: AsyncEngine) -> bool:
    """Whether PostgreSQL answers within `PING_SECONDS`."""
    try:
        async with timed("ping"), asyncio.timeout(PING_SECONDS), engine.connect():
            return True
    except DATABASE_FAILURES:
        return False
