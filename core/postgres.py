"""The PostgreSQL connection pool, and what its failures look like."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import asyncpg
from sqlalchemy import URL, MetaData
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from core import metrics
from core.errors import DatabaseUnavailable

# Of the tables of every room.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# `policy` apart from `select`: it is asked twice a second, and would hide how long analytics take.
QueryType = Literal["copy", "insert", "select", "policy", "ping"]

# What an outage, an exhausted pool or a slow answer raise; COPY raises asyncpg's own errors.
DATABASE_FAILURES = (
    DBAPIError,
    PoolTimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
# Of these, what says that the rows themselves are at fault.
REFUSALS = (
    DataError,
    IntegrityError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)


def describe_failure(error: BaseException) -> str:
    """A database failure as one line of a log, without the statement and the rows it quotes."""
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error
    message = cause.args[0] if isinstance(cause, asyncpg.PostgresError) else cause
    return f"{type(cause).__name__}: {message}"


def create_engine(url: URL, *, pool_size: int, timeout_seconds: float) -> AsyncEngine:
    """A pool of at most `pool_size` connections; waits and statements end after the time-out."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,
        hide_parameters=True,  # in messages of errors: they hold what clients sent
        connect_args={
            "timeout": timeout_seconds,
            "command_timeout": timeout_seconds,
            "server_settings": {
                "application_name": "sentiment",
                "timezone": "UTC",
                # Queries of some 100,000 rollup bins: compiled, they take longer to begin with
                # than to run; and what they group fits into memory.
                "jit": "off",
                "work_mem": "32MB",
                # To start workers takes longer than what these queries would share with them.
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
    """A connection for a query that somebody waits for.

    Raises:
        DatabaseUnavailable: PostgreSQL is down, slow, or all connections are taken.
    """
    try:
        async with timed(query_type), engine.connect() as connection:
            yield connection
    except DATABASE_FAILURES as error:
        raise DatabaseUnavailable("The database cannot answer now; try again") from error


async def connected(engine: AsyncEngine) -> bool:
    try:
        async with timed("ping"), engine.connect():
            return True
    except DATABASE_FAILURES:
        return False
