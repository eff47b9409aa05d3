"""Refuses what is not JSON (415), too large (413) or too slow (408) before anything parses it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import metrics
from core.errors import BodyTooLarge, BodyTooSlow, UnsupportedMedia
from web.routes import POST_ROUTES

# A client that is still sending does not read the answer, and gets a reset if we hang up on it. So
# the rest is read and thrown away, up to this much.
DRAIN_BYTES = 32 * 1_048_576


class BodyGuard:
    """Lets POSTs through that say they are JSON and that stay under both limits."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_timeout_seconds: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_seconds = body_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in POST_ROUTES:
            await self._app(scope, receive, send)
            return
        content_type, length = "application/json", b""
        for name, value in scope["headers"]:  # once over them, instead of a search for each
            if name == b"content-type":
                content_type = value.decode("latin-1")
            elif name == b"content-length":
                length = value
        media_type = content_type.partition(";")[0].strip().lower()
        if scope["method"] == "POST" and media_type != "application/json":
            raise UnsupportedMedia(
                f"Send application/json, not {media_type[:100] or 'an empty content type'}"
            )
        if length.isdigit() and int(length) > self._max_body_bytes:
            await self._drain(receive)
            raise self._too_large()
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        """`receive` that counts bytes and seconds, and stops past either limit."""
        received = 0
        complete = False
        deadline = asyncio.get_running_loop().time() + self._body_timeout_seconds

        async def counting() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                metrics.timed_out_requests.labels("body").inc()
                raise BodyTooSlow(
                    f"The request body took longer than {self._body_timeout_seconds:g} s to come"
                ) from error
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                if not complete:
                    await self._drain(receive)
                raise self._too_large()
            return message

        return counting

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"A request body may have at most {self._max_body_bytes:,} bytes")

    async def _drain(self, receive: Receive) -> None:
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._body_timeout_seconds):
                while drained < DRAIN_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
