"""Waiting for what is to come, without guessing when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Raises TimeoutError: it has not come true in time."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Where there is no event loop. Raises TimeoutError: it has not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Not true within {seconds:g} s")
        time.sleep(0.05)
