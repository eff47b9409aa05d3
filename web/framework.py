"""Takes out of a served app what BentoML puts around it and offers no setting to leave out."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

# Keeps a timer, and all that it refers to, for each request until its time-out, long after it was
# answered: at 1,500 requests a second a full garbage collection took 120 ms, in which none moved.
# Ours (`JsonApiMiddleware`, the runners' deadlines) take theirs back.
UNWANTED = frozenset({"TimeoutMiddleware"})


class FrameworkTrim:
    """Takes `UNWANTED` middleware that lies outside of this one out, before the first request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            _trim(scope["app"].middleware_stack)
        await self._app(scope, receive, send)


def _trim(layer: Any) -> None:
    while not isinstance(layer, FrameworkTrim):
        while type(layer.app).__name__ in UNWANTED:
            layer.app = layer.app.app
        layer = layer.app
