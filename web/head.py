"""Answers HEAD wherever GET is answered."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadMiddleware:
    """Hands HEAD on as GET; the server leaves out the body (RFC 9110, 9.3.2).

    FastAPI answers HEAD with 405 (its routes have the methods that they name, and no others), and
    monitors and link checkers send it first.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
