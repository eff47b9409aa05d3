"""Counts and times every request by route template."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

import metrics
from web.routes import endpoint_label


class InstrumentationMiddleware:
    """`http_requests_total` and `http_request_duration_seconds`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
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
