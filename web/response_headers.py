"""Headers that every answer has, and those that one request gathers on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.request_id import HEADER as REQUEST_ID
from web.request_id import request_id
from web.routes import DASHBOARD_FILES

_GATHERED = "sentiment.headers"

# As OWASP's REST Security Cheat Sheet has them for an API whose answers no browser should render,
# frame or keep. Strict-Transport-Security is for whoever ends TLS.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
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
_USUAL = (*SECURITY_HEADERS, (b"content-security-policy", _NOTHING))
_OF_A_PAGE = (*SECURITY_HEADERS, (b"content-security-policy", _PAGE))
# May be kept, if it is asked each time whether it is still the same.
_OF_THE_DASHBOARD = (
    *(header for header in SECURITY_HEADERS if header[0] != b"cache-control"),
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _DASHBOARD),
)


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
        usual = _headers_of(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message["headers"],
                    *usual,
                    (REQUEST_ID, request_id(scope).encode()),
                    *scope.get(_GATHERED, {}).items(),
                ]
                if self._stopping():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _headers_of(path: str) -> tuple[tuple[bytes, bytes], ...]:
    if path == "/dashboard" or path.startswith(DASHBOARD_FILES):
        return _OF_THE_DASHBOARD
    return _OF_A_PAGE if path in _PAGES else _USUAL


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
