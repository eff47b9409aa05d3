"""Headers that every answer has, and what scripts of other websites may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from web.routes import DASHBOARD_FILES, ROUTES

Header = tuple[bytes, bytes]

# As OWASP's REST Security Cheat Sheet has them for an API whose answers no browser should render,
# frame or keep. Strict-Transport-Security is the duty of the proxy that ends TLS.
SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_NO_CONTENT_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# /docs has scripts: all from here, but Swagger UI also has inline ones.
_DOCS_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; frame-ancestors 'none'"
)
# The dashboard loads nothing but its own files and this service, and nothing inline.
_DASHBOARD_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_API_HEADERS = (*SECURITY_HEADERS, (b"content-security-policy", _NO_CONTENT_POLICY))
_DOCS_HEADERS = (*SECURITY_HEADERS, (b"content-security-policy", _DOCS_POLICY))
# A browser may keep the dashboard's files if it asks each time whether they have changed.
_DASHBOARD_HEADERS = (
    *(header for header in SECURITY_HEADERS if header[0] != b"cache-control"),
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _DASHBOARD_POLICY),
)


def headers_for(path: str) -> tuple[Header, ...]:
    """The security headers of an answer to `path`."""
    if path == "/dashboard" or path.startswith(DASHBOARD_FILES):
        return _DASHBOARD_HEADERS
    return _DOCS_HEADERS if path == "/docs" else _API_HEADERS


# Beside those that every script may read.
_EXPOSED = (
    *("Accept-Encoding", "Accept-Post", "Allow", "Content-Disposition", "Content-Range"),
    *("Idempotency-Result", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"),
    *("WWW-Authenticate", "X-Request-Id"),
)


def cors_options(origins: tuple[str, ...]) -> dict[str, Any]:
    """Options of CORSMiddleware: what scripts of `origins` may send and read."""
    return {
        "allow_origins": origins,
        "allow_methods": sorted({"HEAD", *(route.method for route in ROUTES)}),
        # All, because a page's instrumentation adds headers of its own: traceparent, baggage,
        # sentry-trace, x-datadog-...; the operator trusts the page with more than these.
        "allow_headers": ("*",),
        # Chrome asks for it before a website reaches a service on its user's machine or network.
        "allow_private_network": True,
        "expose_headers": _EXPOSED,
        "max_age": 3_600,
    }


class CorsHeaders:
    """What CORSMiddleware adds to an answer, for answers that no middleware sees."""

    def __init__(self, origins: tuple[str, ...] = ()) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def of(self, request_headers: Iterable[Header]) -> dict[str, str]:
        """The headers by which a script of a listed website may read the answer."""
        for name, value in request_headers if self._origins else ():
            if name == b"origin" and value in self._origins:
                return {
                    "access-control-allow-origin": value.decode(),
                    "access-control-expose-headers": ", ".join(_EXPOSED),
                    "vary": "Origin",
                }
        return {}
