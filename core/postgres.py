"""The PostgreSQL connection pool, and the errors that count as its failures.

A connection may lead to PostgreSQL itself, or to a pooler such as PgBouncer, which lends a server
for one transaction only. So nothing that the service does in a session may outlive a transaction.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import asyncpg
from sqlalchemy import URL, Connection, Dialect, ExceptionContext, MetaData, event, func, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from core import metrics
from core.errors import DatabaseUnavailable
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
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Among them: none of several hosts is the primary.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
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


def is_missing_right(error: BaseException) -> bool:
    """Whether the role lacks a right."""
    return isinstance(_cause_of(error), asyncpg.InsufficientPrivilegeError)


# Each is an SQL expression.
_TUNING = {
    # A query groups some 100,000 rollup bins: compiling it takes longer than running it, and its
    # groups fit into memory.
    "jit": "'off'",
    "work_mem": "'32MB'",
    # Starting parallel workers takes longer than they save in these queries.
    "max_parallel_workers_per_gather": "'0'",
    # Exports have whole numbers, and hashes in the notation of the documents.
    "extra_float_digits": "'1'",
    "bytea_output": "'hex'",
    # What is committed is deleted from the spool, and labels are acknowledged: without waiting for
    # the disk, a crash of the server would lose them. Whoever waits for replicas goes on to.
    "synchronous_commit": (
        "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local' "
        "ELSE current_setting('synchronous_commit') END"
    ),
    # A machine that vanishes within a transaction keeps its locks until the server gives it up:
    # by the defaults of Linux after two hours, or after a quarter of one if it owes us an answer.
    "tcp_keepalives_idle": "'15'",
    "tcp_keepalives_interval": "'5'",
    "tcp_keepalives_count": "'3'",
    "tcp_user_timeout": "'30000'",
}
# The server ends a statement after so many time-outs of the client, whose machine may be frozen:
# one that waits for its next message would keep its locks. (It ends no COPY that does.)
_SERVER_TIMEOUTS = 2
# Settings that PostgreSQL reports without being asked, since version 14.
_READ_ONLY_SETTINGS = ("in_hot_standby", "default_transaction_read_only")
# Reading works in such a session, so it is replaced at intervals, not at each use.
READ_ONLY_SECONDS = 2.0
# A monitor waits no longer than five seconds for an answer to /health.
PING_SECONDS = 2.0
MAX_LOGGED_CHARACTERS = 1_000
# A host among several that has not let a connection in by then is silent.
MAX_HOST_SECONDS = 5.0
# The home of users without one, as Debian calls it.
NO_HOME = "/nonexistent"
_IS_POOLED = "is_pooled"
_CONNECTED_AT = "connected_at"


def describe_failure(error: BaseException) -> str:
    """A database failure as one line of a log, without the statement and the rows it quotes."""
    cause = _cause_of(error)
    return f"{type(cause).__name__}: {_message_of(cause)}"


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
    tuning = dict(_TUNING)
    if timeout_seconds is not None:
        tuning["statement_timeout"] = _bound_unless_set(_SERVER_TIMEOUTS * timeout_seconds)
    event.listen(engine.sync_engine, "do_connect", _Connector(tuning))
    event.listen(engine.sync_engine, "begin", partial(_set_for_transaction, tuning))
    event.listen(engine.sync_engine, "checkout", _refuse_old_read_only)
    event.listen(engine.sync_engine, "handle_error", _drop_pool_of_wrong_server)
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


class _Connector:
    """Opens the connections of a pool, and recognises a pooler in front of PostgreSQL.

    A pooler makes up the process id that it tells a client, because the server changes. Behind
    one, statements have no names: another client's session may have the name already.
    """

    def __init__(self, tuning: Mapping[str, str]) -> None:
        self._tuning = tuning
        self._pooled = False
        self._hosts = _Hosts()

    def __call__(
        self, dialect: Dialect, entry: ConnectionPoolEntry, args: tuple[Any, ...], options: Any
    ) -> DBAPIConnection:
        if not self._pooled:
            connection: Any = self._hosts.connect(dialect, args, options)
            try:
                is_direct = connection.run_async(partial(_set_for_session, self._tuning))
            except BaseException:
                connection.driver_connection.terminate()
                raise
            if is_direct:
                return self._known(connection, entry)
            connection.run_async(asyncpg.Connection.close)
            self._pooled = True
        unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
        return self._known(self._hosts.connect(dialect, args, {**options, **unnamed}), entry)

    def _known(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> DBAPIConnection:
        entry.info[_IS_POOLED] = self._pooled
        entry.info[_CONNECTED_AT] = time.monotonic()
        return connection


class _Hosts:
    """Connects to the first of several hosts that can be used, beginning with the last that could.

    Each has a share of the time. asyncpg gives all of it to the first, which may be silent.
    """

    def __init__(self) -> None:
        self._first = 0

    def connect(
        self, dialect: Dialect, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> DBAPIConnection:
        hosts, ports = options.get("host"), options.get("port")
        if not isinstance(hosts, list) or not isinstance(ports, list):
            return dialect.connect(*args, **options)
        shares = [MAX_HOST_SECONDS]
        if options["timeout"] is not None:
            shares.append(options["timeout"] / len(hosts))
        errors: list[BaseException] = []
        for wanted in _in_turn(options["target_session_attrs"]):
            for number in (*range(self._first, len(hosts)), *range(self._first)):
                one = {
                    "host": hosts[number], "port": ports[number], "timeout": min(shares),
                    "target_session_attrs": wanted,
                }  # fmt: skip
                try:
                    connection = dialect.connect(*args, **{**options, **one})
                except DATABASE_FAILURES as error:
                    errors.append(error)
                else:
                    self._first = number
                    return connection
        # What a server says tells more than that another one is silent.
        said = (error for error in errors if isinstance(error, asyncpg.PostgresError))
        raise next(said, errors[-1])


def _in_turn(wanted: str) -> tuple[str, ...]:
    """What is asked of every host before the next is."""
    return ("standby", "any") if wanted == "prefer-standby" else (wanted,)


async def _set_for_session(tuning: Mapping[str, str], connection: asyncpg.Connection) -> bool:
    """Apply `tuning`, unless a pooler is in between; returns whether it was applied."""
    # A simple query: it has no statement that a pooler could lose. The condition is checked first.
    status = await connection.execute(
        f"{_set_config(tuning, 'false')} WHERE pg_backend_pid() = {connection.get_server_pid()}"
    )
    return bool(status == "SELECT 1")


def _set_for_transaction(tuning: Mapping[str, str], connection: Connection) -> None:
    if connection.info[_IS_POOLED]:
        connection.exec_driver_sql(_set_config(tuning, "true"))


def _bound_unless_set(seconds: float) -> str:
    """A bound for `statement_timeout`; that of the role or the database goes before."""
    return (
        "CASE current_setting('statement_timeout') "
        f"WHEN '0' THEN '{round(1_000 * seconds)}' ELSE current_setting('statement_timeout') END"
    )


def _set_config(tuning: Mapping[str, str], is_local: str) -> str:
    values = (f"set_config('{name}', {value}, {is_local})" for name, value in tuning.items())
    return f"SELECT {', '.join(values)}"


def _refuse_old_read_only(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object
) -> None:
    """Replace a session that is read-only, now and then: a new one may reach the new primary."""
    driver: asyncpg.Connection = connection.driver_connection
    reported = driver.get_settings()
    is_read_only = any(getattr(reported, name, "off") == "on" for name in _READ_ONLY_SETTINGS)
    if is_read_only and time.monotonic() - entry.info[_CONNECTED_AT] > READ_ONLY_SECONDS:
        raise DisconnectionError("the session is read-only")


def _drop_pool_of_wrong_server(context: ExceptionContext) -> None:
    """Drop all connections of the pool once one of them turns out to be read-only.

    After a failover the former primary is a replica, and sessions to it stay open.
    """
    cause = context.original_exception.__cause__
    if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        context.is_disconnect = True


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
