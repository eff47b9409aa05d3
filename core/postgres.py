"""The PostgreSQL connection pool, and the errors that count as its failures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import asyncpg
from sqlalchemy import URL, MetaData
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from core import metrics
from core.errors import DatabaseUnavailable

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
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
# The classes of SQLSTATE by which PostgreSQL refuses a value: data exception, constraint violation.
_VALUE_CLASSES = ("22", "23")
# What the driver raises while it encodes a row, and we while we compute one.
_ENCODING_FAILURES = (ArithmeticError, LookupError, TypeError, ValueError)


def is_value_failure(error: BaseException) -> bool:
    """Whether PostgreSQL or the driver refuses a value, rather than being away or misconfigured."""
    cause = _cause_of(error)
    if isinstance(cause, asyncpg.PostgresError):
        return (cause.sqlstate or "").startswith(_VALUE_CLASSES)
    return isinstance(cause, _ENCODING_FAILURES)


def describe_failure(error: BaseException) -> str:
    """A database failure as one line of a log, without the statement and the rows it quotes."""
    cause = _cause_of(error)
    message = cause.args[0] if isinstance(cause, asyncpg.PostgresError) else cause
    return f"{type(cause).__name__}: {message}"


def _cause_of(error: BaseException) -> BaseException:
    """The error of the driver behind SQLAlchemy's."""
    if isinstance(error, StatementError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def create_engine(url: URL, *, pool_size: int, timeout_seconds: float) -> AsyncEngine:
    """Make a pool of `pool_size` connections; waits and statements end after the time-out."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,
        hide_parameters=True,  # in error messages: parameters hold the texts of clients
        connect_args={
            "timeout": timeout_seconds,
            "command_timeout": timeout_seconds,
            "server_settings": {
                "application_name": "sentiment",
                "timezone": "UTC",
                # A query groups some 100,000 rollup bins: compiling it takes longer than running
                # it, and its groups fit into memory.
                "jit": "off",
                "work_mem": "32MB",
                # Starting parallel workers takes longer than they save in these queries.
                "max_parallel_workers_per_gather": "0",
            },
        },
    )


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


async def connected(engine: AsyncEngine) -> bool:
    """Whether PostgreSQL answers."""
    try:
        async with timed("ping"), engine.connect():
            return True
    except DATABASE_FAILURES:
        return False
