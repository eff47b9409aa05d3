"""A stop that clients do not notice: for a moment it goes on, and tells them to go elsewhere."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp, Message, Receive, Scope, Send


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


class DrainingMiddleware:
    """Ends the connection with each answer while the server is about to stop."""

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining():
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_and_close if scope["type"] == "http" else send)
