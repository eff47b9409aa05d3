"""Redis connections: bounded waits, no hidden retries, and a circuit breaker for outages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from circuitbreaker import CircuitBreaker
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from core import metrics
from core.errors import describe_error

logger = logging.getLogger("bentoml.sentiment.redis")

MAX_CONNECTIONS = 32
FAILURES = 3
REST_SECONDS = 2
# asyncio raises its own TimeoutError and OSError where redis-py does not wrap them.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """Make a client of `url`, which connects with its first command.

    redis-py by default retries a failed command three times with up to 10 s of waiting, which a
    request cannot afford. One immediate retry stays: it replaces a connection that the server
    closed while it was idle.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        # A command beyond this number waits for a connection; it does not count as an outage.
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


class RedisDown(RedisError):
    """The circuit is open: Redis has just failed several times."""


class RedisCircuit:
    """The circuit breaker of a process and its Redis: an outage costs microseconds, no time-outs.

    After `FAILURES` failures in a row, calls fail at once for `REST_SECONDS`; then the next call
    tries Redis again.
    """

    def __init__(self) -> None:
        self._breaker = CircuitBreaker(FAILURES, REST_SECONDS, REDIS_FAILURES, name="redis")
        self._down = False

    @contextmanager
    def calling(self, operation: str) -> Iterator[None]:
        """Wrap one call: count its failure, and log the first failure of an outage.

        Raises:
            REDIS_FAILURES: the call failed, or the circuit is open.
        """
        try:
            if self._breaker.opened:
                raise RedisDown("the circuit is open after several failures of Redis")
            with self._breaker:
                try:
                    yield
                except RuntimeError as error:
                    # uvloop raises it when the connection breaks right before a write. redis-py
                    # converts asyncio's error in that case, but not uvloop's.
                    raise RedisConnectionError(str(error)) from error
        except REDIS_FAILURES as error:
            metrics.redis_errors.labels(operation).inc()
            if not self._down:
                logger.warning(
                    "Redis fails, and the service goes on without it: %s", describe_error(error)
                )
            self._down = True
            raise
        if self._down:
            logger.info("Redis answers again")
        self._down = False
