"""Rate limits per client: a moving window in Redis, in this process while Redis is down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

import metrics
from errors import RateLimited
from redis_connection import REDIS_FAILURES, RedisCircuit
from web.routes import LimitName

KEY_PREFIX = "sentiment-limits"


@dataclass(frozen=True, slots=True)
class LimitState:
    """What is left of one limit for one client."""

    limit: int
    remaining: int
    reset_in_seconds: float


class RateLimiter:
    """Counts requests by client; every worker and machine on one Redis shares the count."""

    def __init__(
        self, redis: Redis, limits: Mapping[LimitName, str], circuit: RedisCircuit | None = None
    ) -> None:
        """`limits` are such as `100/minute`, or `off`. The connections are those of `redis`.

        `circuit` is shared with whoever else uses the same Redis.
        """
        self._items: dict[LimitName, RateLimitItem] = {
            name: parse(limit) for name, limit in limits.items() if limit != "off"
        }
        self._shared = MovingWindowRateLimiter(
            RedisStorage(
                "async+redis://",  # unused beside a pool
                implementation="redispy",
                key_prefix=KEY_PREFIX,
                connection_pool=redis.connection_pool,  # type: ignore[arg-type]
            )
        )
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._circuit = circuit or RedisCircuit()

    async def check(self, name: LimitName, client: str) -> None:
        """Count one request.

        Raises:
            RateLimited: the client has used its limit up; says when it may try again.
        """
        item = self._items.get(name)
        if item is None or await self._hit(item, name, client):
            return
        state = await self.state(name, client)
        wait_seconds = max(1, round(state.reset_in_seconds + 0.5)) if state else 1
        metrics.rate_limited.labels(name).inc()
        raise RateLimited(
            f"More than {item.amount} requests in {item.get_expiry()} s; "
            f"try again in {wait_seconds} s",
            retry_after_seconds=wait_seconds,
        )

    async def state(self, name: LimitName, client: str) -> LimitState | None:
        """What `client` has left, without counting; `None` if the limit is off."""
        item = self._items.get(name)
        if item is None:
            return None
        try:
            with self._circuit.calling("rate_limit"):
                stats = await self._shared.get_window_stats(item, name, client)
        except REDIS_FAILURES:
            stats = await self._local.get_window_stats(item, name, client)
        reset_in_seconds = max(0.0, stats.reset_time - time.time())
        return LimitState(item.amount, stats.remaining, reset_in_seconds)

    async def _hit(self, item: RateLimitItem, name: LimitName, client: str) -> bool:
        try:
            with self._circuit.calling("rate_limit"):
                return await self._shared.hit(item, name, client)
        except REDIS_FAILURES:
            return await self._local.hit(item, name, client)
