"""Draining: after SIGTERM the server serves on for a moment, and sends its clients elsewhere."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType


class Draining:
    """Delays the server's stop after SIGTERM, while `active`.

    A server that stops at once closes connections on which a client is just sending its next
    request. A second SIGTERM, or SIGINT, stops the server immediately.
    """

    def __init__(self, seconds: float) -> None:
        self.active = False
        self._seconds = seconds

    def begin_at_sigterm(self) -> None:
        """Take the signal from the server, and pass it on later; called on the server's loop."""
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
