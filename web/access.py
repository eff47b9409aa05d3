"""Lets a request in if its caller may ask for it, and counts it against the caller's limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from core.api_keys import ApiKey, KeyScope, find_key
from core.asgi import came_over_loopback
from core.errors import Forbidden, Unauthorized
from core.request_context import RequestContext, context_of
from web.routes import LimitName, limit_name, needed_scope

_SCHEME = "bearer "


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


class AccessMiddleware:
    """401 without a known key, 403 without the scope, 429 past the limit.

    Without keys, this machine may ask for everything; other machines only if `allow_anonymous`,
    whichever address the server listens on. Nothing is computed for a request before it is counted.
    A batch counts by its texts: one here, the others by `RequestContext.charge` once its body is
    read. Every answer says what is left (draft-ietf-httpapi-ratelimit-headers-10).
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[ApiKey],
        limiter: Callable[[], Limiter],
        *,
        allow_anonymous: bool = False,
    ) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._limiter = limiter
        self._loopback_only = not keys and not allow_anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, which ProblemMiddleware renders."""
        if scope["type"] == "http":
            context = context_of(scope)
            context.caller = _address(scope)
            if (key := self._authenticate(scope)) is not None:
                context.caller = f"key {key.name}"
            limit = limit_name(scope["method"], scope["path"])
            if limit is not None:
                await self._limit(context, limit)
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> ApiKey | None:
        """The key of a request; None if the request needs none."""
        needed = needed_scope(scope["path"])
        if needed is None:
            return None
        if self._keys:
            return self._authenticated(scope, needed)
        if self._loopback_only and not came_over_loopback(scope):
            raise Forbidden(
                "Without API keys this service answers its own machine only; its operator can set "
                "API_KEYS, or ALLOW_ANONYMOUS=1"
            )
        return None

    def _authenticated(self, scope: Scope, needed: KeyScope) -> ApiKey:
        sent = _sent_key(scope)
        if sent is None:
            raise Unauthorized("Send an API key: Authorization: Bearer KEY")
        key = find_key(self._keys, sent)
        if key is None:
            raise Unauthorized("That API key is not known")
        if not key.allows(needed):
            has = ", ".join(sorted(key.scopes))
            raise Forbidden(f"That API key has no scope {needed}, which this needs; it has {has}")
        return key

    async def _limit(self, context: RequestContext, limit: LimitName) -> None:
        limiter = self._limiter()

        async def charge(cost: int) -> None:
            state = None
            try:
                state = await limiter.check(limit, context.caller, cost)
            except Exception:
                state = await limiter.state(limit, context.caller)
                raise
            finally:
                if state is not None:
                    _add_headers(context, limit, state)

        await charge(1)
        context.charge = charge


def _add_headers(context: RequestContext, name: LimitName, state: LimitState) -> None:
    policy = f'"{name}";q={state.limit};w={state.window_seconds}'
    left = f'"{name}";r={state.remaining};t={math.ceil(state.reset_in_seconds)}'
    context.response_headers[b"ratelimit-policy"] = policy.encode()
    context.response_headers[b"ratelimit"] = left.encode()


def _address(scope: Scope) -> str:
    """The client's address, as uvicorn found it.

    uvicorn takes it from X-Forwarded-For if the peer is a trusted proxy (FORWARDED_ALLOW_IPS, by
    default only this machine).
    """
    client = scope.get("client")
    return client[0] if client else "unknown"


def _sent_key(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else None
    return None
