"""Calls of one Lua script that share round trips to Redis: each costs redis-py 0.1 ms of CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeout

from core.coalescing import CallDropped, Coalescer
from core.redis import MAX_WAIT_SECONDS, ROUND_TRIPS

Call = tuple[Sequence[Any], Sequence[Any]]


class BatchedScript:
    """Stands for a registered script, and is called like it."""

    def __init__(self, redis: Redis, script: AsyncScript) -> None:
        self._redis = redis
        self._script = script
        self._calls = Coalescer[Call, Any](
            self._execute, ROUND_TRIPS, timeout_seconds=MAX_WAIT_SECONDS
        )

    async def __call__(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run the script; each call has its own result, or its own error.

        Raises:
            redis.exceptions.RedisError: Redis failed, or too many calls wait.
        """
        try:
            [result] = await self._calls.get([(keys, args)])
        except CallDropped as error:
            raise RedisTimeout(str(error)) from error
        if isinstance(result, Exception):
            raise result
        return result

    async def _execute(self, calls: list[Call], _timeout_seconds: float) -> list[Any]:
        if len(calls) == 1:
            return [await self._script(*calls[0])]
        pipeline = self._redis.pipeline(transaction=False)
        for keys, args in calls:
            pipeline.evalsha(self._script.sha, len(keys), *keys, *args)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return [
            await self._script(*call) if isinstance(result, NoScriptError) else result
            for call, result in zip(calls, results, strict=True)
        ]
