"""Counts, times and logs every request by route template."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import logging as logs
from core import metrics
from core.errors import Overloaded, ServiceError
from web.problems import ERROR
from web.request_id import request_id
from web.routes import endpoint_label

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every second, and that it is not ready is what they are asked for.
PROBES = frozenset({"/health", "/healthz", "/livez", "/readyz"})
logger = logging.getLogger("bentoml.sentiment.request")


class InstrumentationMiddleware:
    """`http_requests_total`, `http_request_duration_seconds`, and a line of the log.

    What failed is a warning, or an error if nobody foresaw it; all else is told at DEBUG, as it is
    in the metrics and predictions are in the prediction log. So is what there was too much of:
    a line for each would be more work than the refusal.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        logs.request_id.set(request_id(scope))
        # What a client that left before the answer is counted as (nginx's convention).
        status = 499

        async def watching_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        endpoint = endpoint_label(scope["path"])
        try:
            await self._app(scope, receive, watching_send)
        finally:
            metrics.http_requests.labels(endpoint, str(status)).inc()
            duration_seconds = time.perf_counter() - started
            metrics.http_request_duration.labels(endpoint).observe(duration_seconds)
            _log(scope, endpoint, status, duration_seconds)


def _log(scope: Scope, endpoint: str, status: int, duration_seconds: float) -> None:
    error = scope.get(ERROR)
    if status < 500 or isinstance(error, Overloaded) or endpoint in PROBES:
        level = logging.DEBUG
    else:
        level = logging.ERROR if status == 500 else logging.WARNING
    if logger.isEnabledFor(level):
        # By template: a path can hold anything.
        about = {
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "endpoint": endpoint,
            "status": status,
            "duration_ms": round(duration_seconds * 1_000, 3),
        }
        message = "%(method)s %(endpoint)s %(status)d in %(duration_ms).1f ms"
        if isinstance(error, ServiceError):  # ours, and it says enough
            about, message, error = {**about, "why": str(error)}, message + ": %(why)s", None
        logger.log(level, message, about, exc_info=error, extra=about)
