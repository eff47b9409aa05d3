"""A stop that clients do not notice: for a moment it goes on, and tells them to go elsewhere."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType


class Draining:
    """After SIGTERM the server goes on for a while before it closes its connections.

    Closed at once, it would close those on which a client is just sending its next request. A
    second SIGTERM, or SIGINT, stops it at once.
    """

    def __init__(self, seconds: float) -> None:
        self.active = False
        self._seconds = seconds

    def begin_at_sigterm(self) -> None:
        """Take the signal from the server, to give it on later; called on its loop."""
        loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        if not callable(stop) or not self._seconds:
            return

        def begin(number: int, frame: FrameType | None) -> None:
            if self.active:
                stop(number, frame)
                return
            self.active = True
            loop.call_soon_threadsafe(loop.call_later, self._seconds, stop, number, frame)

        signal.signal(signal.SIGTERM, begin)
