"""Rate limits per client: a moving window in Redis, or in this process while Redis is down."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from cachetools import TTLCache
from limits import RateLimitItem, WindowStats, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from core import metrics
from core.absent import absent
from core.errors import RateLimited
from core.rate_limits import OFF, LimitName
from core.redis import REDIS_FAILURES, RedisCircuit
from web.batched_script import BatchedScript

T = TypeVar("T")

KEY_PREFIX = "sentiment-limits"
NO_LIMITS: Mapping[LimitName, str] = {}
# Clients whose state this process remembers, and for how long: to ask Redis for a state costs as
# much as to count.
REMEMBERED_CLIENTS = 10_000
REMEMBERED_SECONDS = 2.0


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
        """`limits` read like `100/minute`, or `off`; the connections are those of `redis`.

        Batches count by their texts: `20/minute` allows 20 batches of `max_batch_texts`, or more
        smaller ones. All users of one Redis share its `circuit`.
        """
        self._limits = dict(limits)
        self._max_batch_texts = max_batch_texts
        self._redis = redis
        # It imports every client that it could use and finds, so also the private Redis's.
        with absent("valkey"):
            self._storage = RedisStorage(
                "async+redis://",  # unused beside a pool
                implementation="redispy",
                key_prefix=KEY_PREFIX,
                connection_pool=redis.connection_pool,  # type: ignore[arg-type]
            )
        bridge: Any = self._storage.bridge
        for script in ("lua_acquire_moving_window", "lua_moving_window"):
            setattr(bridge, script, BatchedScript(redis, getattr(bridge, script)))
        self._shared = MovingWindowRateLimiter(self._storage)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._circuit = circuit or RedisCircuit()
        # Of spoilt keys, under way.
        self._deletions: dict[str, asyncio.Future[bool]] = {}
        self._remembered: TTLCache[str, LimitState] = TTLCache(
            REMEMBERED_CLIENTS, REMEMBERED_SECONDS
        )

    async def check(
        self, name: LimitName, client: str, cost: int = 1, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        """Count one request, or `cost` texts of one; the client's `own` limits go first.

        Returns what is left, None if the limit is off. It includes requests that other processes
        counted after at most `REMEMBERED_SECONDS`; the limit itself is exact.

        Raises:
            RateLimited: the client has used up its limit; the error says when it may try again.
        """
        item = self._item(name, own)
        if item is None:
            return None
        if await self._hit(item, name, client, cost):
            return await self._state_after(item, name, client, cost)
        self._remembered.pop(item.key_for(name, client), None)
        state = await self._state(item, name, client)
        if state.remaining >= cost:
            if await self._hit(item, name, client, cost):  # room has come since
                return await self._state_after(item, name, client, cost)
            # Others may have taken it. If there still is room, Redis contradicts itself, like one
            # that answers nothing.
            state = await self._state(item, name, client)
            if state.remaining >= cost and await self._local.hit(item, name, client, cost=cost):
                return await _state_of(self._local, item, name, client)
        wait_seconds = max(1, round(state.reset_in_seconds + 0.5))
        metrics.rate_limited.labels(name).inc()
        counted = "texts" if name == "batch" else "requests"
        raise RateLimited(
            f"More than {item.amount:,} {counted} in {item.get_expiry()} s; "
            f"try again in {wait_seconds} s",
            retry_after_seconds=wait_seconds,
        )

    async def take(
        self, name: LimitName, client: str, cost: int, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        """Count `cost`, or as much of it as is left; returns what is left then, None if it is off.

        Another request may take the rest in between: then nothing is counted.
        """
        item = self._item(name, own)
        if item is None:
            return None
        state = await self._state(item, name, client)
        if (taken := min(cost, state.remaining)) and await self._hit(item, name, client, taken):
            self._remembered.pop(item.key_for(name, client), None)
            state.remaining -= taken
        return state

    async def state(
        self, name: LimitName, client: str, own: Mapping[LimitName, str] = NO_LIMITS
    ) -> LimitState | None:
        """What `client` has left, without counting; `None` if the limit is off."""
        item = self._item(name, own)
        return None if item is None else await self._state(item, name, client)

    def _item(self, name: LimitName, own: Mapping[LimitName, str]) -> RateLimitItem | None:
        rate = own.get(name) or self._limits.get(name, OFF)
        return _item_of(rate, self._max_batch_texts if name == "batch" else 1)

    async def _state_after(
        self, item: RateLimitItem, name: LimitName, client: str, cost: int
    ) -> LimitState:
        key = item.key_for(name, client)
        known: LimitState | None = self._remembered.get(key)
        if known is None:
            known = self._remembered[key] = await self._state(item, name, client)
        else:
            known.remaining = max(0, known.remaining - cost)
        return known

    async def _state(self, item: RateLimitItem, name: LimitName, client: str) -> LimitState:
        async def stats(limiter: MovingWindowRateLimiter) -> LimitState:
            return await _state_of(limiter, item, name, client)

        return await self._ask(item, name, client, stats)

    async def _hit(self, item: RateLimitItem, name: LimitName, client: str, cost: int) -> bool:
        async def hit(limiter: MovingWindowRateLimiter) -> bool:
            return await limiter.hit(item, name, client, cost=cost)

        return await self._ask(item, name, client, hit)

    async def _ask(
        self,
        item: RateLimitItem,
        name: LimitName,
        client: str,
        question: Callable[[MovingWindowRateLimiter], Awaitable[T]],
    ) -> T:
        """Ask Redis, and this process if Redis cannot answer.

        A key with a value that is not a window was written by another program. It is deleted, and
        the client's window begins again.
        """
        for is_last in (False, True):
            try:
                with self._circuit.calling("rate_limit"):
                    return await question(self._shared)
            except NoPermissionError:
                break
            except ResponseError:
                if is_last or not await self._delete(item.key_for(name, client)):
                    break
            except REDIS_FAILURES:
                break
        try:
            return await question(self._local)
        except ResponseError:  # the clock was set back
            await self._local.clear(item, name, client)
            return await question(self._local)

    async def _delete(self, key: str) -> bool:
        """Delete a key once for all that found it spoilt: the window of the first is another's."""
        deletion = self._deletions.get(key)
        if deletion is None:
            deletion = self._deletions[key] = asyncio.ensure_future(self._delete_now(key))
            deletion.add_done_callback(lambda _: self._deletions.pop(key, None))
        return await asyncio.shield(deletion)

    async def _delete_now(self, key: str) -> bool:
        try:
            with self._circuit.calling("rate_limit"):
                await self._redis.delete(self._storage.bridge.prefixed_key(key))
        except REDIS_FAILURES:
            return False
        return True


async def _state_of(
    limiter: MovingWindowRateLimiter, item: RateLimitItem, name: LimitName, client: str
) -> LimitState:
    left = await limiter.get_window_stats(item, name, client)
    _check_stats(item, left)
    return LimitState(item.amount, item.get_expiry(), left.remaining, left.reset_time)


def _check_stats(item: RateLimitItem, stats: WindowStats) -> None:
    """Check what Redis holds of a window; a list may hold any numbers.

    Raises:
        ResponseError: no requests can have left it.
    """
    # The clocks of machines differ, but by less than a window.
    latest = time.time() + 2 * item.get_expiry()
    if not (math.isfinite(stats.reset_time) and stats.reset_time <= latest):
        raise ResponseError("WRONGTYPE the window of a rate limit ends at an impossible time")
    if not 0 <= stats.remaining <= item.amount:
        raise ResponseError("WRONGTYPE the window of a rate limit has an impossible size")


@lru_cache(1_000)
def _item_of(rate: str, factor: int) -> RateLimitItem | None:
    """A rate with its amount multiplied; None if it is off."""
    if rate == OFF:
        return None
    item = parse(rate)
    return type(item)(item.amount * factor, item.multiples)
