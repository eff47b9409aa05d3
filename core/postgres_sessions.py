"""The sessions of a PostgreSQL pool: which host they are opened at, and what is set in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

# What the driver raises where no session can be opened.
CONNECT_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Among them: none of several hosts is the primary.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
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
# A host among several that has not let a connection in by then is silent.
MAX_HOST_SECONDS = 5.0
_IS_POOLED = "is_pooled"
_CONNECTED_AT = "connected_at"


def watch_sessions(engine: Engine, timeout_seconds: float | None) -> None:
    """Open the sessions of a pool, set what the service needs in them, and replace read-only ones.

    A statement ends on the server too, after twice the time-out of the client.
    """
    tuning = dict(_TUNING)
    if timeout_seconds is not None:
        tuning["statement_timeout"] = _bound_unless_set(_SERVER_TIMEOUTS * timeout_seconds)
    event.listen(engine, "do_connect", _Connector(tuning))
    event.listen(engine, "begin", partial(_set_for_transaction, tuning))
    event.listen(engine, "checkout", _refuse_old_read_only)
    event.listen(engine, "handle_error", _drop_pool_of_wrong_server)


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
                except CONNECT_FAILURES as error:
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
