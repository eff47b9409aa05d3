"""Stops the work on a request whose client has hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A watch costs a task, and most requests are over before it would have told anything.
WATCHED_AFTER_SECONDS = 0.02


class DisconnectMiddleware:
    """Cancels a request for one of `paths` when its client leaves before the answer began.

    What still waits to be computed is then not computed, unless somebody else asked for it too.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        request = asyncio.current_task()
        answering = False
        has_left = False
        start_of_watch: asyncio.TimerHandle | None = None
        watch: asyncio.Task[None] | None = None

        async def wait_for_disconnect() -> None:
            nonlocal has_left
            # The server tells of the end of its own answer in the same way.
            while (await receive())["type"] != "http.disconnect":
                pass
            if request is not None and not answering:
                has_left = True
                request.cancel()

        def start_watch() -> None:
            nonlocal watch
            watch = asyncio.create_task(wait_for_disconnect())

        async def watching_receive() -> Message:
            nonlocal start_of_watch
            message = await receive()
            if start_of_watch is None and not message.get("more_body", False):
                # From here on nobody else reads: the body was all there was to come.
                loop = asyncio.get_running_loop()
                start_of_watch = loop.call_later(WATCHED_AFTER_SECONDS, start_watch)
            return message

        async def watching_send(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self._app(scope, watching_receive, watching_send)
        except asyncio.CancelledError:
            if not has_left:
                raise
        finally:
            if start_of_watch is not None:
                start_of_watch.cancel()
            if watch is not None:
                watch.cancel()
            # Our own cancellation is over; one of the server's that came with it is not.
            if request is not None and has_left and request.uncancel():
                raise asyncio.CancelledError
