"""The path of the service that a request's target stands for: without a prefix, without a slash."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from core import metrics
from core.asgi import send_response
from web.routes import ROUTES, UNKNOWN, route_of

LISTED = frozenset(path.encode() for route in ROUTES for path in route.paths)


class RequestTargets:
    """Finds the path inside the service, for a service that lies below `PATH_PREFIX`.

    A proxy may take the prefix off or leave it; probes and Prometheus come without it. A slash at
    the end of an endpoint's path is dropped, because a redirect would lose the body of a POST, or
    lead to the address that the proxy uses.
    """

    def __init__(self, prefix: str = "") -> None:
        """`prefix` is empty, or begins with a slash and does not end with one."""
        self._prefix = prefix.encode()
        self._below = self._prefix + b"/"

    def inner(self, target: bytes) -> bytes:
        """Convert the target of a request; the most frequent ones are `LISTED` as they are."""
        path, mark, query = target.partition(b"?")
        if self._prefix and path.startswith(self._below) and not _is_known(path):
            path = path[len(self._prefix) :]
        bare = path.removesuffix(b"/")
        if bare not in (b"", b"/", path) and not _is_known(path) and _is_known(bare):
            path = bare
        # The server decodes a path. No path of this service needs an escape, and a rule of a proxy
        # about /admin may not know /%61dmin: an escape stays what it is.
        return path.replace(b"%", b"%25") + mark + query

    def is_prefix(self, target: bytes) -> bool:
        """Whether a target is the prefix alone, from where relative links would lead astray."""
        return bool(self._prefix) and target.partition(b"?")[0] == self._prefix

    async def redirect(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer a request for the prefix alone: its page is one slash further."""
        # No middleware counts it.
        metrics.http_requests.labels(UNKNOWN.path, "308").inc()
        query = scope["query_string"].decode("latin-1")
        location = f"{self._prefix.decode().rpartition('/')[2]}/{'?' if query else ''}{query}"
        await send_response(send, 308, b"", headers={"location": location})


def _is_known(path: bytes) -> bool:
    return route_of("GET", path.decode("latin-1")).path != UNKNOWN.path
