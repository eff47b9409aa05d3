"""One large body at a time: to decode and parse one takes the process many milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import Overloaded

# So many of a caller may wait, and so many in all.
MAX_OF_CALLER = 32
MAX_WAITING = 4 * MAX_OF_CALLER
# After a turn the event loop is free for as long as the turn took, and for no longer than this: a
# small request passes the loop several times before its answer is out.
MAX_REST_SECONDS = 0.02


class Turns:
    """Lets one large body after the other be worked on; between two, the event loop is free."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._free_at = 0.0
        self._waiting: Counter[str] = Counter()  # by caller, with the one whose turn it is

    @asynccontextmanager
    async def of(self, caller: str) -> AsyncIterator[None]:
        """The turn of a body of `caller`, until the block ends.

        Raises:
            Overloaded: too many wait.
        """
        if self._waiting[caller] >= MAX_OF_CALLER or self._waiting.total() >= MAX_WAITING:
            raise Overloaded(
                "Too many large bodies come at the same time; try again", of_large=True
            )
        self._waiting[caller] += 1
        try:
            async with self._lock:
                await asyncio.sleep(max(self._free_at - time.monotonic(), 0.0))
                began = time.monotonic()
                try:
                    yield
                finally:
                    ended = time.monotonic()
                    self._free_at = ended + min(ended - began, MAX_REST_SECONDS)
        finally:
            self._waiting[caller] -= 1
            self._waiting += Counter()  # drops the callers of whom none waits
