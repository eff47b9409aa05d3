"""Lets only the API call a runner."""

from __future__ import annotations

import hmac

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.asgi import came_over_loopback
from runners.transport import KEY_HEADER

HEADER = KEY_HEADER.lower().encode()
OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


class RunnerKeyMiddleware:
    """Refuses whoever does not show the key; without one, whoever is on another machine.

    Whoever may call a runner can use its CPU and change its model.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = key and key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._key is not None:
            shown = dict(scope["headers"]).get(HEADER, b"")
            if hmac.compare_digest(shown, self._key):
                await self._app(scope, receive, send)
            else:
                await _refuse(scope, receive, send, "RUNNER_KEY is another one, or was not shown")
        elif came_over_loopback(scope):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, receive, send, "Set RUNNER_KEY, here and where the API runs")


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    await PlainTextResponse(why, status_code=403)(scope, receive, send)
