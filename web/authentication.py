"""Lets in who has an API key for what they ask, if there are keys."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from core.api_keys import ApiKey, KeyScope, find_key
from core.errors import Forbidden, Unauthorized
from web.routes import needed_scope

_SCHEME = "bearer "


class AuthenticationMiddleware:
    """Refuses requests without a key (401) or without the scope (403).

    The name of the key is who the rate limits count. Without keys, whoever is on this machine may
    ask for all; others only if that was said, however the server came to listen to them.
    """

    def __init__(
        self, app: ASGIApp, keys: Sequence[ApiKey], *, anonymous_from_elsewhere: bool = False
    ) -> None:
        self._app = app
        self._keys = tuple(keys)
        self._only_from_here = not keys and not anonymous_from_elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys:
            needed = needed_scope(scope["path"])
            if needed is not None:
                scope[CLIENT] = f"key {self._authenticate(scope, needed).name}"
        elif (
            self._only_from_here
            and scope["type"] == "http"
            and not came_over_loopback(scope)
            and needed_scope(scope["path"]) is not None
        ):
            raise Forbidden(
                "This service has no API keys and answers its own machine alone; set API_KEYS, "
                "or ALLOW_ANONYMOUS=1"
            )
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope, needed: KeyScope) -> ApiKey:
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


CLIENT = "sentiment.client"
# The last is how one that listens on :: calls the first.
_LOOPBACK = ("127.", "::ffff:127.")


def came_over_loopback(scope: Scope) -> bool:
    """By the address it was sent to: that of the sender may be what a proxy says."""
    server = scope.get("server")
    # Without a port it came over a Unix socket.
    if server is None or server[1] is None:
        return True
    address: str = server[0]
    return address == "::1" or address.startswith(_LOOPBACK)


def _sent_key(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else None
    return None
