"""The span of a whole request, part of its caller's trace if that has one."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import tracing
from web.request_id import request_id


class TracingMiddleware:
    """Traces what `route` names; the names are OpenTelemetry's for HTTP servers."""

    def __init__(self, app: ASGIApp, route: Callable[[str], str | None]) -> None:
        self._app = app
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_traced = tracing.is_on() and scope["type"] == "http"
        route = self._route(scope["path"]) if is_traced else None
        if route is None:
            await self._app(scope, receive, send)
            return
        about = {
            "http.request.method": scope["method"],
            "http.route": route,
            "sentiment.request_id": request_id(scope),
        }
        with tracing.span(
            f"{scope['method']} {route}",
            about,
            kind=SpanKind.SERVER,
            parent=tracing.parent_from_headers(scope["headers"]),
        ) as span:

            async def watching_send(message: Message) -> None:
                if message["type"] == "http.response.start" and span is not None:
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await self._app(scope, receive, watching_send)
