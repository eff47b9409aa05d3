"""Writes to the cache behind the reply: bounded, in batches, and drained at the stop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from core.background import run_in_background

T = TypeVar("T")


class WriteBehind(Generic[T]):
    """Queues items, which one background task writes in order, up to `batch_items` at once."""

    def __init__(
        self, write: Callable[[list[T]], Awaitable[None]], *, max_items: int, batch_items: int
    ) -> None:
        """`write` handles its own failures; past `max_items` waiting, new items are dropped."""
        self._write = write
        self._max_items = max_items
        self._batch_items = batch_items
        self._waiting: deque[T] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, items: Iterable[T]) -> int:
        """Queue `items`; returns how many were dropped because too many wait."""
        dropped = 0
        for item in items:
            if len(self._waiting) < self._max_items:
                self._waiting.append(item)
            else:
                dropped += 1
        if self._waiting and (self._task is None or self._task.done()):
            self._task = run_in_background("CacheWriter", self._drain, until_done=True)
        return dropped

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that is queued has been written; False if the time was not enough."""
        if self._task is None or self._task.done():
            return True
        _, pending = await asyncio.wait({self._task}, timeout=timeout_seconds)
        return not pending

    async def stop(self, timeout_seconds: float) -> None:
        """Write what is queued, for `timeout_seconds` at most."""
        if not await self.flush(timeout_seconds) and self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), self._batch_items)
            await self._write([self._waiting.popleft() for _ in range(size)])
