"""Refuses the requests of clients that are past their rate limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from web.authentication import CLIENT
from web.response_headers import add_header
from web.routes import LimitName, limit_name


class LimitState(Protocol):
    """What is left of one limit for one client."""

    @property
    def limit(self) -> int: ...

    @property
    def window_seconds(self) -> int: ...

    @property
    def remaining(self) -> int: ...

    @property
    def reset_in_seconds(self) -> float: ...


class Limiter(Protocol):
    async def check(self, name: LimitName, client: str, cost: int = 1) -> LimitState | None: ...

    async def state(self, name: LimitName, client: str) -> LimitState | None: ...


class RateLimitMiddleware:
    """Refuses a request with 429 before anything is computed for it.

    A batch is counted by its texts: one before its body is read, the others, by `charge`, after.
    Every answer says what is left, in the headers of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def __init__(self, app: ASGIApp, limiter: Callable[[], Limiter]) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = limit_name(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if name is None:
            await self._app(scope, receive, send)
            return
        limiter, client = self._limiter(), client_identity(scope)

        async def count(cost: int) -> None:
            state = None
            try:
                state = await limiter.check(name, client, cost)
            except Exception:
                state = await limiter.state(name, client)
                raise
            finally:
                if state is not None:
                    _tell(scope, name, state)

        await count(1)
        scope[_COUNT] = count
        await self._app(scope, receive, send)


_COUNT = "sentiment.count"


async def charge(scope: Scope, cost: int) -> None:
    """Count so much more against the limit of a request.

    Raises:
        RateLimited: its client has not so much left.
    """
    count = scope.get(_COUNT)
    if count is not None and cost > 0:
        await count(cost)


def _tell(scope: Scope, name: LimitName, state: LimitState) -> None:
    reset_seconds = math.ceil(state.reset_in_seconds)
    add_header(scope, b"ratelimit-policy", f'"{name}";q={state.limit};w={state.window_seconds}')
    add_header(scope, b"ratelimit", f'"{name}";r={state.remaining};t={reset_seconds}')


def client_identity(scope: Scope) -> str:
    """Whom a request is counted against: the name of its key, or else the peer's address.

    uvicorn has already put the address from X-Forwarded-For here if the peer is a trusted proxy
    (FORWARDED_ALLOW_IPS, by default only this machine).
    """
    if CLIENT in scope:
        return str(scope[CLIENT])
    client = scope.get("client")
    return client[0] if client else "unknown"
