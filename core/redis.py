"""Redis connections: bounded waits, no hidden retries, and a circuit breaker for outages."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from cachetools import TTLCache
from circuitbreaker import CircuitBreaker
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError, ResponseError

from core import metrics
from core.coalescing import Bounds
from core.errors import describe_error

logger = logging.getLogger("bentoml.sentiment.redis")

MAX_CONNECTIONS = 32
# Longer than a command may take: a burst of requests is no reason to go without Redis.
MAX_CONNECTION_WAIT_SECONDS = 2.0
# Two commands of a kind run at once; calls that arrive meanwhile share the next one. The client
# limits each command; a call that waits longer than MAX_WAIT_SECONDS for its turn goes without.
ROUND_TRIPS = Bounds(calls=2, call_items=500, waiting_items=50_000)
MAX_WAIT_SECONDS = 5.0
FAILURES = 3
REST_SECONDS = 2
# After this time without a failure, the success of another operation ends an outage too.
RECOVERY_SECONDS = 10.0
# asyncio raises its own TimeoutError and OSError where redis-py does not wrap them.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)
# What redis-py does not convert: uvloop's RuntimeError when the connection breaks right before a
# write, and the errors of a reply that is no protocol of Redis, or of another type than expected.
NO_REDIS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
)  # fmt: skip
# Answers of a replica, which was the primary when the connection was made.
WRONG_SERVER = (ReadOnlyError, MasterDownError)
# A refusal that repeats is logged again after this time.
REFUSAL_LOG_SECONDS = 600.0
MAX_LOGGED_CHARACTERS = 300
# What redis-py says if all connections are in use for as long as one may be waited for.
POOL_IS_BUSY = "No connection available."

Operation = Literal["lookup", "store", "size", "ping", "rate_limit", "key_use", "idempotency"]
COMMANDS: dict[Operation, str] = {
    "lookup": "MGET",
    "store": "SET",
    "size": "DBSIZE or SCAN",
    "ping": "PING",
    "rate_limit": "EVALSHA",
    "key_use": "HSET or HGETALL",
    "idempotency": "MULTI",
}


def connect(
    url: str, *, timeout_seconds: float, wait_seconds: float = MAX_CONNECTION_WAIT_SECONDS
) -> Redis:
    """Make a client of `url`, which connects with its first command.

    A command waits for `wait_seconds` at most until one of the connections is free.

    redis-py by default retries a failed command three times with up to 10 s of waiting, which a
    request cannot afford. One immediate retry stays: it replaces a connection that the server
    closed while it was idle, or whose server became a replica.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        # A command beyond this number waits for a connection; it does not count as an outage.
        max_connections=MAX_CONNECTIONS,
        timeout=wait_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        # Version 3 begins with HELLO, which old servers, proxies and renamed commands lack.
        protocol=2,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=list(WRONG_SERVER),
    )
    return Redis.from_pool(pool)


class RedisDown(RedisError):
    """The circuit is open: Redis has just failed several times."""


class AllConnectionsBusy(RedisError):
    """A command waited too long for a connection, which says nothing of Redis."""


class RedisCircuit:
    """The circuit breaker of a process and its Redis: an outage costs microseconds, no time-outs.

    After `FAILURES` failures in a row, calls fail at once for `REST_SECONDS`; then the next call
    tries Redis again. A refusal of one command is no outage: Redis answers, and other commands may
    work.
    """

    def __init__(self) -> None:
        self._breaker = CircuitBreaker(FAILURES, REST_SECONDS, _is_outage, name="redis")
        # The operation that failed last, and when; None if Redis answers.
        self._failed: Operation | None = None
        self._failed_at = 0.0
        self._refused: TTLCache[tuple[Operation, str], None] = TTLCache(100, REFUSAL_LOG_SECONDS)

    @contextmanager
    def calling(self, operation: Operation) -> Iterator[None]:
        """Wrap one call: count its failure, and log the first failure of an outage.

        Raises:
            REDIS_FAILURES: the call failed, or the circuit is open.
        """
        try:
            if self._breaker.opened:
                raise RedisDown("the circuit is open after several failures of Redis")
            try:
                yield
            except RedisConnectionError as error:
                if str(error) == POOL_IS_BUSY:
                    raise AllConnectionsBusy(POOL_IS_BUSY) from error
                raise
            except NO_REDIS as error:
                reason = describe_error(error)[:MAX_LOGGED_CHARACTERS]
                raise RedisConnectionError(reason) from error
        except REDIS_FAILURES as error:
            metrics.redis_errors.labels(operation).inc()
            if not isinstance(error, RedisDown | AllConnectionsBusy):
                self._note(error)
            if _is_outage(type(error), error):
                self._log_outage(operation, error)
            else:
                self._log_refusal(operation, error)
                if not isinstance(error, AllConnectionsBusy):
                    self._log_recovery(operation)
            raise
        # Not of a call that was cancelled, or failed by our own fault: Redis had no part in that.
        self._note(None)
        self._log_recovery(operation)

    def _note(self, error: Exception | None) -> None:
        """Let the circuit know what came of a call."""
        with suppress(*REDIS_FAILURES), self._breaker:
            if error is not None:
                raise error

    def _log_outage(self, operation: Operation, error: Exception) -> None:
        if self._failed is None:
            logger.warning(
                "Redis fails, and the service goes on without it: %s", describe_error(error)
            )
        if self._failed is None or not isinstance(error, RedisDown):
            self._failed, self._failed_at = operation, time.monotonic()

    def _log_recovery(self, operation: Operation) -> None:
        """Log that what failed works, or that nothing has failed for a while.

        A Redis that is full, or a replica, reads while it does not write.
        """
        if self._failed is None:
            return
        if operation == self._failed or time.monotonic() - self._failed_at > RECOVERY_SECONDS:
            logger.info("Redis answers again")
            self._failed = None

    def _log_refusal(self, operation: Operation, error: Exception) -> None:
        """Log the first of the refusals that differ only in their details."""
        kind = (operation, type(error).__name__ + str(error).partition(" ")[0])
        if kind not in self._refused:
            self._refused[kind] = None
            does = "has no time for" if isinstance(error, AllConnectionsBusy) else "refuses"
            logger.error(
                "Redis %s %s, and the service goes on without it: %s",
                does,
                COMMANDS[operation],
                describe_error(error)[:MAX_LOGGED_CHARACTERS],
            )


def _is_outage(_kind: type[BaseException], error: BaseException) -> bool:
    is_refusal = isinstance(error, ResponseError | AllConnectionsBusy) and not isinstance(
        error, WRONG_SERVER
    )
    return isinstance(error, REDIS_FAILURES) and not is_refusal
