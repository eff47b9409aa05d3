"""How long the request at hand may still take, for whoever works on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@asynccontextmanager
async def deadline_in(seconds: float) -> AsyncIterator[None]:
    """Cancels the block after `seconds`, and lets it know when that will be.

    Raises:
        TimeoutError: it took longer.
    """
    async with asyncio.timeout(seconds) as timeout:
        token = _deadline.set(timeout.when() or math.inf)
        try:
            yield
        finally:
            _deadline.reset(token)


def remaining_seconds() -> float:
    """Until the deadline of this request; infinite if it has none."""
    return _deadline.get() - asyncio.get_running_loop().time()
