"""Lets a request in if its caller may ask for it, and counts it against the caller's limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from core.api_keys import ApiKey, KeyScope
from core.asgi import came_over_loopback
from core.errors import Forbidden, InvalidRequest, MalformedRequest, RateLimited, Unauthorized
from core.key_ring import KeyRing
from core.rate_limits import LimitName
from core.request_context import RequestContext, context_of
from web.forwarded import LOOPBACK, UNKNOWN, Proxies, client_name, peer_name
from web.routes import route_of

if TYPE_CHECKING:
    # Not for the processes of the runners: it comes with redis.
    from web.rate_limiter import LimitState, RateLimiter

_SCHEME = "bearer "
SOURCE_HEADER = "X-Sentiment-Source"
PLAYGROUND = "playground"
_SOURCE_HEADER = SOURCE_HEADER.lower().encode()


class AccessMiddleware:
    """Finds out who sends a request: 401 without a known key, 403 without the scope, 429 past the
    limit.

    Without keys, this machine may ask for everything; other machines only if `allow_anonymous`,
    whichever address the server listens on. Nothing is computed for a request before it is counted.
    A request of the playground, which `SOURCE_HEADER` marks, counts against limits of its own.
    A batch counts by its texts: one here, the others by `RequestContext.charge` once its body is
    read. Every answer says what is left (draft-ietf-httpapi-ratelimit-headers-10).
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        limiter: Callable[[], RateLimiter],
        proxies: Proxies | None = None,
        *,
        allow_anonymous: bool = False,
    ) -> None:
        self._app = app
        self._keys = keys
        self._limiter = limiter
        self._proxies = proxies or Proxies(())
        self._loopback_only = not keys.is_required and not allow_anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, which ProblemMiddleware renders."""
        if scope["type"] == "http":
            self._proxies.apply(scope)
            context = context_of(scope)
            route = route_of(scope["method"], scope["path"])
            context.address = peer_name(scope)
            context.caller = context.address
            if route.scope is not None and (key := self._authenticate(scope, route.scope, context)):
                context.limits = key.limits
                context.is_admin = key.allows("admin")
                context.may_label = key.allows("feedback")
            context.is_trial = route.predicts and _is_trial(scope)
            if route.limit is not None:
                await self._limit(context, route.limit)
        await self._app(scope, receive, send)

    def _authenticate(
        self, scope: Scope, needed: KeyScope, context: RequestContext
    ) -> ApiKey | None:
        """The key of a request, whose caller it is; None if the service has no keys."""
        address = context.address
        # A proxy on this machine comes over loopback, and its clients do not.
        is_own = came_over_loopback(scope) and address in (LOOPBACK, UNKNOWN)
        if self._loopback_only and not is_own:
            raise Forbidden(
                "Without API keys this service answers its own machine only; its operator can set "
                "API_KEYS, or ALLOW_ANONYMOUS=1"
            )
        if not self._keys.is_required:
            return None
        sent = _sent_key(scope)
        if sent is None:
            raise Unauthorized("Send an API key: Authorization: Bearer KEY")
        key = self._keys.find(sent)
        if key is None:
            raise Unauthorized("That API key is not known")
        context.caller = _named(key)  # also of one that is refused
        if not key.allows(needed):
            has = ", ".join(sorted(key.scopes))
            raise Forbidden(f"That API key has no scope {needed}, which this needs; it has {has}")
        return key

    async def _limit(self, context: RequestContext, limit: LimitName) -> None:
        limiter = self._limiter()
        client = f"{context.caller}, {PLAYGROUND}" if context.is_trial else context.caller
        # Not the context itself, which gets the function: only a garbage collection finds a ring,
        # and those of a flood took a fifth of the event loop's time.
        own_limits, headers = context.limits, context.response_headers
        whole = 0

        async def charge(cost: int, *, refuses: bool = True) -> None:
            nonlocal whole
            whole += cost
            count = limiter.check if refuses else limiter.take
            try:
                state = await count(limit, client, cost, own_limits)
            except Exception as error:
                state = await limiter.state(limit, client, own_limits)
                _add_headers(headers, limit, state)
                if isinstance(error, RateLimited) and state is not None and whole > state.limit:
                    raise InvalidRequest(  # after any wait it would be too much again
                        f"The request counts as {whole:,} texts against the rate limit {limit}, "
                        f"which is {state.limit:,} in {state.window_seconds:,} s; send fewer or "
                        "shorter texts at once"
                    ) from error
                raise
            _add_headers(headers, limit, state)

        await charge(1)
        context.charge = charge


def likely_caller(scope: Scope, keys: KeyRing, proxies: Proxies) -> str:
    """Who sent a request that is not let in yet: its key, if that is known, or else its address."""
    if keys.is_required and (sent := _sent_key(scope)) is not None and (key := keys.find(sent)):
        return _named(key)
    client = proxies.read(scope).client
    return peer_name(scope) if client is None else client_name(client)


def _named(key: ApiKey) -> str:
    return f"key {key.name}"


def _is_trial(scope: Scope) -> bool:
    sources = [value for name, value in scope["headers"] if name == _SOURCE_HEADER]
    if any(value != PLAYGROUND.encode() for value in sources):
        raise MalformedRequest(f"{SOURCE_HEADER} is {PLAYGROUND}, or absent")
    return bool(sources)


def _add_headers(headers: dict[bytes, bytes], name: LimitName, state: LimitState | None) -> None:
    if state is None:
        return
    policy = f'"{name}";q={state.limit};w={state.window_seconds}'
    left = f'"{name}";r={state.remaining};t={math.ceil(state.reset_in_seconds)}'
    headers[b"ratelimit-policy"] = policy.encode()
    headers[b"ratelimit"] = left.encode()


def _sent_key(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else None
    return None
