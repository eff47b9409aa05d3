"""Renders a document for all who ask for it, at a time or at all."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")

# After a rendering, so many times as long as it took: it may take a fifth of a core.
_PAUSE = 4
# It may have taken long because the disk stood still.
MAX_PAUSE_SECONDS = 5.0


class SharedRendering(Generic[T]):
    """Renders once at a time, for all who ask meanwhile.

    However many ask, what each gets was begun after it asked. A Coalescer chooses who shares a call
    when it makes it; here they join until the rendering begins, also during the pause before it.
    """

    def __init__(
        self,
        render: Callable[[], Awaitable[T]],
        *,
        pause: int = 0,
        max_pause_seconds: float = MAX_PAUSE_SECONDS,
    ) -> None:
        """After each rendering none begins for `pause` times as long as it took, up to a bound."""
        self._render = render
        self._pause = pause
        self._max_pause_seconds = max_pause_seconds
        self._turn = asyncio.Lock()
        # The rendering that has not begun yet.
        self._next: asyncio.Task[T] | None = None
        self._not_before = -math.inf

    @classmethod
    def in_thread(cls, render: Callable[[], T]) -> SharedRendering[T]:
        """Renders in a thread, seldom enough to leave the process to others."""
        return cls(partial(asyncio.to_thread, render), pause=_PAUSE)

    async def get(self) -> T:
        """The next rendering; raises what it raises."""
        if self._next is None:
            # It is no part of the request that happens to be the first, nor ends with its deadline.
            self._next = asyncio.create_task(self._run(), context=Context())
            self._next.add_done_callback(_note_failure)
        # Others wait for it too.
        return await asyncio.shield(self._next)

    async def get_within(self, seconds: float, otherwise: T) -> T:
        """The next rendering, or `otherwise`: it goes on, and another begins when it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.get()
        return otherwise

    async def _run(self) -> T:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            self._next = None
            began = time.monotonic()
            try:
                return await self._render()
            finally:
                ended = time.monotonic()
                pause_seconds = min(self._pause * (ended - began), self._max_pause_seconds)
                self._not_before = ended + pause_seconds


class SingleRendering:
    """Renders a document that never changes, in a thread, once for all who ask for it."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._rendering: asyncio.Task[bytes] | None = None

    async def get(self) -> bytes:
        """The document; raises what its rendering raises, of which the next one begins anew."""
        if self._rendering is None:
            self._rendering = asyncio.create_task(asyncio.to_thread(self._render))
            self._rendering.add_done_callback(self._end)
        return await asyncio.shield(self._rendering)

    def _end(self, rendering: asyncio.Task[bytes]) -> None:
        _note_failure(rendering)
        if rendering.cancelled() or rendering.exception() is not None:
            self._rendering = None


def _note_failure(rendering: asyncio.Task[T]) -> None:
    """Take note of a failure for which nobody waits any more."""
    if not rendering.cancelled():
        rendering.exception()
