"""The context of the current request: its caller, for the audit log, and its deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

_caller: ContextVar[str] = ContextVar("caller", default="unknown")
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def set_caller(name: str) -> None:
    """Set the caller for the rest of the running task."""
    _caller.set(name)


def caller() -> str:
    """The current caller's API key name, or its address; for the audit log."""
    return _caller.get()


@asynccontextmanager
async def deadline_in(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after `seconds`; `remaining_seconds` inside it returns the time left.

    Raises:
        TimeoutError: the block took longer.
    """
    async with asyncio.timeout(seconds) as timeout:
        token = _deadline.set(timeout.when() or math.inf)
        try:
            yield
        finally:
            _deadline.reset(token)


def remaining_seconds() -> float:
    """Seconds until the deadline of the current request; infinite if it has none."""
    return _deadline.get() - asyncio.get_running_loop().time()
