"""Rate limits per client: a moving window in Redis, in this process while Redis is down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from cachetools import TTLCache
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from core import metrics
from core.errors import RateLimited
from core.redis import REDIS_FAILURES, RedisCircuit
from web.routes import LimitName

KEY_PREFIX = "sentiment-limits"


# Whose state is remembered, and for how long: asking Redis for it costs as much as counting does.
SEEN_CLIENTS = 10_000
SEEN_SECONDS = 2.0


@dataclass(slots=True)
class LimitState:
    """What is left of one limit for one client."""

    limit: int
    window_seconds: int
    remaining: int
    reset_at: float  # of time.time

    @property
    def reset_in_seconds(self) -> float:
        return max(0.0, self.reset_at - time.time())


class RateLimiter:
    """Counts requests by client; every worker and machine on one Redis shares the count."""

    def __init__(
        self,
        redis: Redis,
        limits: Mapping[LimitName, str],
        *,
        max_batch_texts: int = 1,
        circuit: RedisCircuit | None = None,
    ) -> None:
        """`limits` are such as `100/minute`, or `off`. The connections are those of `redis`.

        Batches are counted by their texts: `20/minute` are 20 batches of `max_batch_texts`, or more
        smaller ones. `circuit` is shared with whoever else uses the same Redis.
        """
        self._items: dict[LimitName, RateLimitItem] = {
            name: _times(parse(limit), max_batch_texts if name == "batch" else 1)
            for name, limit in limits.items()
            if limit != "off"
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
        self._seen: TTLCache[tuple[LimitName, str], LimitState] = TTLCache(
            SEEN_CLIENTS, SEEN_SECONDS
        )

    async def check(self, name: LimitName, client: str, cost: int = 1) -> LimitState | None:
        """Count one request, or `cost` texts of one.

        Returns what is left, None if the limit is off. What others of the client's requests have
        used elsewhere is seen after at most `SEEN_SECONDS`; the limit itself is exact.

        Raises:
            RateLimited: the client has used its limit up; says when it may try again.
        """
        item = self._items.get(name)
        if item is None:
            return None
        if await self._hit(item, name, client, cost):
            return await self._state_after(name, client, cost)
        self._seen.pop((name, client), None)
        state = await self.state(name, client)
        wait_seconds = max(1, round(state.reset_in_seconds + 0.5)) if state else 1
        metrics.rate_limited.labels(name).inc()
        counted = "texts" if name == "batch" else "requests"
        raise RateLimited(
            f"More than {item.amount:,} {counted} in {item.get_expiry()} s; "
            f"try again in {wait_seconds} s",
            retry_after_seconds=wait_seconds,
        )

    async def _state_after(self, name: LimitName, client: str, cost: int) -> LimitState | None:
        seen = self._seen.get((name, client))
        if seen is None:
            state = await self.state(name, client)
            if state is not None:
                self._seen[name, client] = state
            return state
        seen.remaining = max(0, seen.remaining - cost)
        return seen

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
        return LimitState(item.amount, item.get_expiry(), stats.remaining, stats.reset_time)

    async def _hit(self, item: RateLimitItem, name: LimitName, client: str, cost: int) -> bool:
        try:
            with self._circuit.calling("rate_limit"):
                return await self._shared.hit(item, name, client, cost=cost)
        except REDIS_FAILURES:
            return await self._local.hit(item, name, client, cost=cost)


def _times(item: RateLimitItem, factor: int) -> RateLimitItem:
    return type(item)(item.amount * factor, item.multiples)
