"""Refuses the requests of clients that are past their rate limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from web.authentication import CLIENT
from web.routes import LimitName, limit_name


class Limiter(Protocol):
    async def check(self, name: LimitName, client: str) -> None: ...


class RateLimitMiddleware:
    """Refuses a request with 429 before anything is computed for it."""

    def __init__(self, app: ASGIApp, limiter: Callable[[], Limiter]) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = limit_name(scope["method"], scope["path"])
            if name is not None:
                await self._limiter().check(name, client_identity(scope))
        await self._app(scope, receive, send)


def client_identity(scope: Scope) -> str:
    """Whom a request is counted against: the name of its key, or else the peer's address.

    uvicorn has already put the address from X-Forwarded-For here if the peer is a trusted proxy
    (FORWARDED_ALLOW_IPS, by default only this machine).
    """
    if CLIENT in scope:
        return str(scope[CLIENT])
    client = scope.get("client")
    return client[0] if client else "unknown"
