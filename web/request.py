"""Counts, times, logs and traces every request, and completes the headers of its answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import metrics, request_context, tracing
from core.errors import Overloaded, ServiceError
from core.request_context import REQUEST_ID_HEADER, RequestContext, context_of
from web.response_headers import headers_for
from web.routes import PROBE_PATHS, Route, route_of

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# The status of a request whose client left before the answer (nginx's convention).
CLIENT_CLOSED_REQUEST = 499
# Between two lines of refused requests to audited routes.
REFUSAL_SECONDS = 1.0
logger = logging.getLogger("bentoml.sentiment.request")


class RequestMiddleware:
    """`http_requests_total`, `http_request_duration_seconds`, a log line, a span, the headers.

    A failure is a warning, or an error if the code did not foresee it. All else is at DEBUG: the
    metrics and the prediction log have it. So are shed requests: a line for each would cost more
    than the refusal. An audited route is at INFO, with its caller; of refused ones, which cost a
    client nothing, one a second.

    While `stopping`, each answer ends its connection.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._stopping = stopping
        self._told_refusal_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        context = context_of(scope)
        request_context.enter(context)
        route, usual_headers = route_of(scope["method"], scope["path"]), headers_for(scope["path"])
        status = CLIENT_CLOSED_REQUEST
        # Around the log line too, which names the trace.
        with _span(scope, context, route) as span:

            async def complete_and_send(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    if span is not None:
                        _add_status(span, status)
                    headers = [
                        *message["headers"],
                        *usual_headers,
                        (REQUEST_ID_HEADER, context.id.encode()),
                        *context.response_headers.items(),
                    ]
                    if self._stopping():
                        headers.append((b"connection", b"close"))
                    message = {**message, "headers": headers}
                await send(message)

            try:
                await self._app(scope, receive, complete_and_send)
            finally:
                metrics.http_requests.labels(route.path, str(status)).inc()
                duration_seconds = time.perf_counter() - started
                metrics.http_request_duration.labels(route.path).observe(duration_seconds)
                is_told = route.audited and (status < 400 or self._tells_refusal())
                _log(scope["method"], context, route, status, duration_seconds, is_told=is_told)

    def _tells_refusal(self) -> bool:
        if time.monotonic() - self._told_refusal_at < REFUSAL_SECONDS:
            return False
        self._told_refusal_at = time.monotonic()
        return True


def _span(
    scope: Scope, context: RequestContext, route: Route
) -> AbstractContextManager[Span | None]:
    """The span of a traced request, part of its caller's trace if that has one.

    The names are OpenTelemetry's for HTTP servers.
    """
    if not (tracing.is_on() and route.traced):
        return nullcontext()
    return tracing.span(
        f"{scope['method']} {route.path}",
        {
            "http.request.method": scope["method"],
            "http.route": route.path,
            "sentiment.request_id": context.id,
        },
        kind=SpanKind.SERVER,
        parent=tracing.parent_from_headers(scope["headers"]),
    )


def _add_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _log(
    method: str,
    context: RequestContext,
    route: Route,
    status: int,
    duration_seconds: float,
    *,
    is_told: bool,
) -> None:
    """Log a request; `is_told`: at INFO at least."""
    error = context.error
    # A metric counts these, and a client can have thousands of them.
    is_counted = isinstance(error, Overloaded) or (status == 504 and context.has_own_deadline)
    if status < 500 or is_counted or route.path in PROBE_PATHS:
        level = logging.INFO if is_told else logging.DEBUG
    else:
        level = logging.ERROR if status == 500 else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    # The template, not the path: a path can hold anything.
    fields = {
        "method": method if method in METHODS else "other",
        "endpoint": route.path,
        "status": status,
        "duration_ms": round(duration_seconds * 1_000, 3),
    }
    message = "%(method)s %(endpoint)s %(status)d in %(duration_ms).1f ms"
    if route.audited:
        fields["caller"] = context.caller
        message += " for %(caller)s"
    arguments = fields
    if isinstance(error, ServiceError):  # one of ours, whose message says enough
        # A refusal names what it refuses, such as a field: a text by mistake. The reply has it.
        has_reason = status >= 500 or route.audited
        reason = str(error) if has_reason else type(error).__name__
        arguments, message, error = {**fields, "reason": reason}, message + ": %(reason)s", None
    logger.log(level, message, arguments, exc_info=error, extra=fields)
