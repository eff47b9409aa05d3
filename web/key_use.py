"""When each API key was last used, by any process on the same Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from core.background import Background
from core.key_ring import KeyRing
from core.redis import REDIS_FAILURES, RedisCircuit

# A hash of Unix times by `ApiKey.id`. It is lost with the Redis.
NAME = "sentiment-key-use"
WRITE_SECONDS = 10.0
# The last uses of keys that are no longer valid go after so long.
KEPT_SECONDS = 400 * 86_400


class KeyUse(Background):
    """Shares the uses that this process has seen. A Redis outage leaves those of this process."""

    def __init__(self, keys: KeyRing, redis: Redis, circuit: RedisCircuit) -> None:
        self._keys = keys
        self._redis = redis
        self._circuit = circuit
        self._written: dict[str, float] = {}

    async def last_used(self) -> Mapping[str, float]:
        """The Unix time of the last use by `ApiKey.id`, of the keys that are valid and were used.

        Other processes' uses are at most `WRITE_SECONDS` old.
        """
        times = self._own()
        shared: Mapping[bytes | str, bytes | str] = {}
        try:
            with self._circuit.calling("key_use"):
                shared = await self._redis.hgetall(NAME)
                if forgotten := self._forgotten(shared):
                    await self._redis.hdel(NAME, *forgotten)
        except REDIS_FAILURES:
            pass
        for key in self._keys.keys:
            other = _time(shared.get(key.id.encode()))
            if other is not None:
                times[key.id] = max(other, times.get(key.id, other))
        return times

    def _forgotten(self, shared: Mapping[bytes | str, bytes | str]) -> list[bytes | str]:
        """The entries of keys that are not valid and have not been used for `KEPT_SECONDS`."""
        valid = {key.id.encode() for key in self._keys.keys}
        before = time.time() - KEPT_SECONDS
        return [id_ for id_, at in shared.items() if id_ not in valid and (_time(at) or 0) < before]

    def _own(self) -> dict[str, float]:
        used = self._keys.last_used
        return {key.id: used[key.sha256] for key in self._keys.keys if key.sha256 in used}

    async def write(self) -> None:
        own = self._own()
        new: dict[Any, float] = {
            id_: used for id_, used in own.items() if used > self._written.get(id_, 0.0)
        }
        if new:
            try:
                with self._circuit.calling("key_use"):
                    await self._redis.hset(NAME, mapping=new)
            except REDIS_FAILURES:
                return
            self._written = own

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()


def _time(value: bytes | str | None) -> float | None:
    """A time of the hash; None for what another program may have written there."""
    try:
        used = float(value or b"")
    except ValueError:
        return None
    return used if 0 < used <= time.time() + WRITE_SECONDS else None
