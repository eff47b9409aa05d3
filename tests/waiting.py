"""Waiting for what is to come, without guessing when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

# What takes longer does not come; it bounds no speed.
WAIT_SECONDS = 30.0
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 0.1
# Of the pause before: what comes late is looked for less often, as a look may be dear.
GROWTH = 1.1


def pauses() -> Iterator[float]:
    """Seconds between one look and the next; they are the longest after a second."""
    seconds = SHORTEST_PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(LONGEST_PAUSE_SECONDS, seconds * GROWTH)


async def until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Raises TimeoutError: it has not come true in time."""
    async with asyncio.timeout(seconds):
        for pause in pauses():
            if condition():
                return
            await asyncio.sleep(pause)


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Where there is no event loop. Raises TimeoutError: it has not come true in time."""
    end = time.monotonic() + seconds
    for pause in pauses():
        if condition():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"Not true within {seconds:g} s")
        time.sleep(pause)
