"""Headers that every answer has, and those that one request gathers on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.request_id import HEADER as REQUEST_ID
from web.request_id import request_id

_GATHERED = "sentiment.headers"

# As OWASP's REST Security Cheat Sheet has them for an API whose answers no browser should render,
# frame or keep. Strict-Transport-Security is for whoever ends TLS.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NOT_KEPT = (b"cache-control", b"no-store")
_NOTHING = b"default-src 'none'; frame-ancestors 'none'"
# The pages with scripts: of the documentation, all from here but for what Swagger UI has inline.
_PAGE = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; frame-ancestors 'none'"
)
_PAGES = frozenset({"/", "/docs"})
# The dashboard: nothing but its own files and this service, and nothing inline.
_DASHBOARD = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# May be kept, if it is asked each time whether it is still the same.
_ASK_AGAIN = (b"cache-control", b"no-cache")


def add_header(scope: Scope, name: bytes, value: str) -> None:
    """Have the answer to this request carry a header; the last value of a name counts."""
    scope.setdefault(_GATHERED, {})[name] = value.encode()


class ResponseHeadersMiddleware:
    """Adds `SECURITY_HEADERS`, the request's id, and what `add_header` was given.

    While the server is about to stop, the connection ends with each answer.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy, caching = _page_headers(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message["headers"],
                    *SECURITY_HEADERS,
                    caching,
                    (b"content-security-policy", policy),
                    (REQUEST_ID, request_id(scope).encode()),
                    *scope.get(_GATHERED, {}).items(),
                ]
                if self._stopping():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _page_headers(path: str) -> tuple[bytes, tuple[bytes, bytes]]:
    """The content security policy, and how long an answer is kept."""
    if path == "/dashboard" or path.startswith("/dashboard/"):
        return _DASHBOARD, _ASK_AGAIN
    return (_PAGE if path in _PAGES else _NOTHING), _NOT_KEPT


def cors_options(origins: tuple[str, ...]) -> dict[str, Any]:
    """What scripts of other websites may do; without any, browsers keep all of them out."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "POST"),
        "allow_headers": (
            "Authorization",
            "Content-Type",
            "X-Request-Id",
            "X-Request-Timeout-Ms",
        ),
        "expose_headers": ("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
        "max_age": 3_600,
    }
