"""Checks a Redis before the service uses it: its kind and the user's rights."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cache.keys import PREFIX
from core.errors import describe_error

if TYPE_CHECKING:
    from redis.asyncio import Redis

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
    return asyncio.run(_reached(url, timeout_seconds))


async def _reached(url: str, timeout_seconds: float) -> str | None:
    # Imported here: the manager of the processes needs it for a moment only.
    from redis.exceptions import ResponseError

    from core.redis import NO_REDIS, REDIS_FAILURES, connect

    client = connect(url, timeout_seconds=timeout_seconds)
    try:
        # A server that sends a byte now and then would keep the client of a command for ever.
        async with asyncio.timeout(2 * timeout_seconds):
            return await _fault(client, ResponseError)
    except UnusableRedis:
        raise
    except (*REDIS_FAILURES, *NO_REDIS) as error:
        reason = describe_error(error)
    finally:
        await client.aclose()
    return f"Redis at REDIS_URL cannot be reached: {reason}"


async def _fault(client: Redis, response_error: type[Exception]) -> str | None:
    from web.idempotency import KEY_PREFIX as REPEATS
    from web.key_use import NAME as KEY_USE
    from web.rate_limiter import KEY_PREFIX as LIMITS

    def repeat() -> Awaitable[object]:
        """All commands on keys of repeats; nothing is left of them."""
        key, lock = f"{REPEATS}:check", f"{REPEATS}:check:lock"
        pipeline = client.pipeline(transaction=True)
        pipeline.hsetnx(key, "begun", b"1")
        pipeline.hset(key, "answer", b"1")
        pipeline.hget(key, "answer")
        pipeline.hmget(key, ["begun", "answer"])
        pipeline.hdel(key, "answer")
        pipeline.exists(key)
        pipeline.expire(key, 1)
        pipeline.set(lock, b"1", nx=True, px=1_000)
        pipeline.get(lock)
        pipeline.delete(key, lock)
        return pipeline.execute()

    try:
        cluster: dict[str, Any] = await client.info("cluster")
        replication: dict[str, Any] = await client.info("replication")
    except response_error:
        cluster, replication = {}, {}  # the user may not ask; the commands below tell
    if cluster.get("cluster_enabled"):
        raise UnusableRedis(
            "Redis at REDIS_URL is a node of a Redis Cluster, which is not supported: one lookup "
            "asks for many keys; name a single Redis or Valkey"
        )
    if replication.get("role") in ("slave", "replica"):
        return "Redis at REDIS_URL is a replica, which stores nothing; name the primary"
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "SET": lambda: client.set(CHECK_KEY, b"1", ex=1),
        "MGET": lambda: client.mget([CHECK_KEY]),
        "DEL": lambda: client.delete(CHECK_KEY),
        "DBSIZE": client.dbsize,
        "SCAN": lambda: client.scan(match=CHECK_KEY),
        "EVAL": lambda: client.eval(SCRIPT, 1, f"{LIMITS}:check", "1"),
        "HGETALL": lambda: client.hgetall(KEY_USE),
        "MULTI": repeat,
    }
    replies: dict[str, object] = {}
    for command, call in calls.items():
        try:
            replies[command] = await call()
        except response_error as error:
            return (
                f"Redis at REDIS_URL refuses {command}, which the service needs: "
                f"{describe_error(error)}"
            )
    if replies["EVAL"] != 1:
        raise ValueError("its replies are not those of Redis")
    return None
