"""Refuses what a browser sends for another site: another host's name, another site's page."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import Forbidden, MalformedRequest, MisdirectedRequest
from web.forwarded import parse_address

# Methods that change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD"})
_SAME_SITE = (b"same-origin", b"none")
_WITHOUT_HOST = ("0.9", "1.0")
_HOST = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]{0,5})?")


class OriginMiddleware:
    """421 for a Host that is not ours, 403 for what a page of another site requests, but links.

    A page can make a browser send requests to a service on the user's own machine, with whatever
    rights that machine has there. The browser itself says that it does: in Sec-Fetch-Site, or, if
    it is an old one or the connection is not encrypted, in Origin. Programs send neither. The rules
    are those of Go's http.CrossOriginProtection. A page whose name its owner has pointed at this
    machine (DNS rebinding) is of the same origin to the browser, but Host still has its name.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] | None, origins: Collection[str]
    ) -> None:
        """`hosts` are the names of this service, None: any; `origins` may do what we may."""
        self._app = app
        self._hosts = hosts
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, which ProblemMiddleware renders."""
        if scope["type"] == "http":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        sent = dict(scope["headers"])
        site, origin = sent.get(b"sec-fetch-site"), sent.get(b"origin")
        if len(hosts) > 1:
            raise MalformedRequest("A request has one Host header")
        host = hosts[0].strip().lower() if hosts else b""
        # HTTP/1.0 has none; no browser speaks it.
        if not host and scope["http_version"] not in _WITHOUT_HOST:
            raise MalformedRequest("A request has one Host header, which is not empty")
        if host and self._hosts is not None and not _is_one_of(self._hosts, host, scope):
            raise MisdirectedRequest(
                "This service has another name than the Host header says; its operator can set "
                "ALLOWED_HOSTS"
            )
        if origin in self._origins or scope["method"] == "OPTIONS":
            return
        if scope["method"] in SAFE_METHODS:
            # A link from another site is welcome. What a page loads from here, also into a frame,
            # it cannot read, but it would use up the limits of the user in whose browser it is.
            mode, destination = sent.get(b"sec-fetch-mode"), sent.get(b"sec-fetch-dest")
            is_link = mode in (None, b"navigate") and destination in (None, b"document")
            is_allowed = site is None or site in _SAME_SITE or is_link
        elif site is not None:
            is_allowed = site in _SAME_SITE
        else:
            is_allowed = origin is None or origin.lower().partition(b"://")[2] == host
        if not is_allowed:
            raise Forbidden(
                "A page of another website requests this, and it is not among those that the "
                "operator allows in CORS_ORIGINS"
            )


def _is_one_of(hosts: Collection[str], host: bytes, scope: Scope) -> bool:
    name = _without_port(host.decode("latin-1"))
    if name is None:
        return False
    if name in hosts or name == "localhost":
        return True
    address = parse_address(name)
    if address is None:
        return False
    # Probes and Prometheus come by the address; no DNS entry leads to such a name. A socket of IPv6
    # sees 10.0.0.7 as ::ffff:10.0.0.7.
    server = scope.get("server")
    return address.is_loopback or (server is not None and address == parse_address(server[0]))


def _without_port(host: str) -> str | None:
    """The name or the address in a Host header; None if it is none (RFC 9110, 7.2)."""
    if (parts := _HOST.fullmatch(host)) is None:
        return None
    return parts["address"] or parts["name"].removesuffix(".")
