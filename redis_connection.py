"""Redis connections: bounded waits, no hidden retries, and one way to tell an outage."""

from __future__ import annotations

import logging

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

import metrics

logger = logging.getLogger("bentoml.sentiment.redis")

MAX_CONNECTIONS = 32
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


class OutageLog:
    """Counts every failure, and logs the first of an outage and its end."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._down = False

    def failed(self, operation: str, error: BaseException) -> None:
        metrics.redis_errors.labels(operation).inc()
        if not self._down:
            logger.error("%s: Redis fails, going on without it: %r", self._part, error)
        self._down = True

    def succeeded(self) -> None:
        if self._down:
            logger.info("%s: Redis answers again", self._part)
        self._down = False
