"""Checks a Redis before the service uses it: its kind and the user's rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cache.keys import PREFIX
from core.errors import describe_error

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_SECONDS = 2.0
CHECK_KEY = f"{PREFIX}check"
SCRIPT = "redis.call('LPUSH', KEYS[1], ARGV[1]) return redis.call('DEL', KEYS[1])"


class UnusableRedis(ValueError):
    """The service can never work with this Redis; the message is one line."""


def redis_problem(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Describe in one line why the service cannot use this Redis; None if it can."""
    try:
        return redis_fault(url, timeout_seconds=timeout_seconds)
    except UnusableRedis as error:
        return str(error)


def redis_fault(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Describe a fault that may heal while the service runs; None if there is none.

    Raises:
        UnusableRedis: the fault is none that heals.
    """
    # Imported here: the manager of the processes needs it for a moment only.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError
    from redis.retry import Retry

    client: Redis = Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        protocol=2,  # as core/redis.py does
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return _fault(client, ResponseError)
    except (RedisError, OSError) as error:
        return f"Redis at REDIS_URL cannot be reached: {describe_error(error)}"
    finally:
        client.close()


def _fault(client: Redis, response_error: type[Exception]) -> str | None:
    from web.rate_limiter import KEY_PREFIX

    try:
        cluster: dict[str, Any] = client.info("cluster")
        replication: dict[str, Any] = client.info("replication")
    except response_error:
        cluster, replication = {}, {}  # the user may not ask; the commands below tell
    if cluster.get("cluster_enabled"):
        raise UnusableRedis(
            "Redis at REDIS_URL is a node of a Redis Cluster, which is not supported: one lookup "
            "asks for many keys; name a single Redis or Valkey"
        )
    if replication.get("role") in ("slave", "replica"):
        return "Redis at REDIS_URL is a replica, which stores nothing; name the primary"
    calls: dict[str, Callable[[], object]] = {
        "SET": lambda: client.set(CHECK_KEY, b"1", ex=1),
        "MGET": lambda: client.mget([CHECK_KEY]),
        "DEL": lambda: client.delete(CHECK_KEY),
        "DBSIZE": client.dbsize,
        "SCAN": lambda: client.scan(match=CHECK_KEY),
        "EVAL": lambda: client.eval(SCRIPT, 1, f"{KEY_PREFIX}:check", "1"),
    }
    for command, call in calls.items():
        try:
            call()
        except response_error as error:
            return (
                f"Redis at REDIS_URL refuses {command}, which the cache or the limits need: "
                f"{describe_error(error)}"
            )
    return None
