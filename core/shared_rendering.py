"""Renders a document for all who ask for it, at a time or at all."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

# After a rendering, so many times as long as it took: it may take a fifth of a core.
_PAUSE = 4


class SharedRendering:
    """Renders in a thread, once at a time, and seldom enough to leave the process to others.

    However many ask, what each gets was begun after it asked. A Coalescer chooses who shares a call
    when it makes it; here they join until the rendering begins, also during the pause before it.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._turn = asyncio.Lock()
        # The rendering that has not begun yet.
        self._next: asyncio.Task[bytes] | None = None
        self._not_before = -math.inf

    async def get(self) -> bytes:
        """The next rendering; raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
            self._next.add_done_callback(_note_failure)
        # Others wait for it too.
        return await asyncio.shield(self._next)

    async def _run(self) -> bytes:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            self._next = None
            began = time.monotonic()
            try:
                return await asyncio.to_thread(self._render)
            finally:
                ended = time.monotonic()
                self._not_before = ended + _PAUSE * (ended - began)


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


def _note_failure(rendering: asyncio.Task[bytes]) -> None:
    """Take note of a failure for which nobody waits any more."""
    if not rendering.cancelled():
        rendering.exception()
