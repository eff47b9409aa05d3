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

logger = logging.getLogger("bentoml.sentiment.redis")

MAX_CONNECTIONS = 32
FAILURES = 3
REST_SECONDS = 2
# asyncio raises its own TimeoutError and OSError where redis-py does not wrap them.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A client of `url`, without connecting yet.

    redis-py by default retries a failed command three times with up to 10 s of waiting, which a
    request cannot afford. One immediate retry stays: it is what heals a connection that the server
    closed while it was idle.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        # Past so many commands at once, one waits for another instead of counting as an outage.
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


class RedisDown(RedisError):
    """Redis has just failed several times, and is not asked for a moment."""


class RedisCircuit:
    """All calls of a process to one Redis: an outage costs them microseconds, not time-outs.

    After `FAILURES` failures in a row it is left alone for `REST_SECONDS`; then the next call
    tries.
    """

    def __init__(self) -> None:
        self._breaker = CircuitBreaker(FAILURES, REST_SECONDS, REDIS_FAILURES, name="redis")
        self._down = False

    @contextmanager
    def calling(self, operation: str) -> Iterator[None]:
        """Around one call. Raises `REDIS_FAILURES`, counted; the first of an outage is logged."""
        try:
            if self._breaker.opened:
                raise RedisDown("Redis is left alone after its failures")
            with self._breaker, _closed_transport_told_as_such():
                yield
        except REDIS_FAILURES as error:
            metrics.redis_errors.labels(operation).inc()
            if not self._down:
                logger.warning("Redis fails, going on without it: %r", error)
            self._down = True
            raise
        if self._down:
            logger.info("Redis answers again")
        self._down = False


@contextmanager
def _closed_transport_told_as_such() -> Iterator[None]:
    """uvloop raises RuntimeError where a connection breaks off right before it is written to.

    redis-py wraps what asyncio raises then, and lets that through.
    """
    try:
        yield
    except RuntimeError as error:
        raise RedisConnectionError(str(error)) from error
