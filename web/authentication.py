"""Lets in who has an API key for what they ask, if there are keys."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from api_keys import ApiKey, KeyScope, find_key
from errors import Forbidden, Unauthorized
from web.routes import needed_scope

_SCHEME = "bearer "


class AuthenticationMiddleware:
    """Refuses requests without a key (401) or without the scope (403); without keys, lets all in.

    The name of the key is who the rate limits count.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey]) -> None:
        self._app = app
        self._keys = tuple(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys:
            needed = needed_scope(scope["path"])
            if needed is not None:
                scope[CLIENT] = f"key {self._authenticate(scope, needed).name}"
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope, needed: KeyScope) -> ApiKey:
        sent = _sent_key(scope)
        if sent is None:
            raise Unauthorized("Send an API key: Authorization: Bearer KEY")
        key = find_key(self._keys, sent)
        if key is None:
            raise Unauthorized("That API key is not known")
        if not key.allows(needed):
            raise Forbidden(f"That API key does not have the scope {needed}")
        return key


CLIENT = "sentiment.client"


def _sent_key(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text[len(_SCHEME) :].strip() if text.lower().startswith(_SCHEME) else None
    return None
