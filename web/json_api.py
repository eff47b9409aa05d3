"""Serves the POST APIs of the service: reads the body, calls within a deadline, renders.

BentoML's own dispatch finds out for each request what it already knew: it derives the method's
signature, imports modules, binds injections, and streams the reply in parts. That was half the
CPU time of a cached request (docs/decisions/0010). It also answers every exception in a shape of
its own. So this middleware answers in front of the dispatch; the service's declarations still
decide on routes, bodies and replies.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from core import metrics
from core.asgi import ClientDisconnected, cancelled_on_disconnect, send_response
from core.errors import DeadlineExceeded, MalformedRequest
from core.request_context import context_of, deadline_in
from web.body import JsonBodyReader
from web.query import check_parameters
from web.routes import Route
from web.schemas.predictions import RequestBody

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 999_999_999
_TIMEOUT_HEADER = TIMEOUT_HEADER.lower().encode()
_MAX_DIGITS = len(str(MAX_TIMEOUT_MS))


@dataclass(frozen=True, slots=True)
class JsonApi:
    """One POST API of the service; `call` gets the fields of `request` by name."""

    route: Route
    name: str
    summary: str
    request: type[RequestBody]
    reply: type[BaseModel]
    call: Callable[..., Awaitable[BaseModel]]


class JsonApiMiddleware:
    """Answers POSTs to the routes that are the keys of `apis`; the framework answers the rest."""

    def __init__(
        self,
        app: ASGIApp,
        apis: Callable[[], Mapping[str, JsonApi]],
        body_reader: JsonBodyReader,
        timeout_seconds: float,
    ) -> None:
        self._app = app
        self._apis = apis
        self._body_reader = body_reader
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, which ProblemMiddleware renders."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        api = self._apis().get(scope["path"]) if is_post else None
        if api is None:
            await self._app(scope, receive, send)
            return
        check_parameters(scope.get("query_string", b""), ())
        body = await self._body_reader.read(scope, receive, api.route.media_types)
        request = api.request.parse(body)
        charge = context_of(scope).charge
        if charge is not None and request.cost > 1:
            await charge(request.cost - 1)
        timeout_seconds = min(self._timeout_seconds, _requested_timeout_seconds(scope))
        try:
            async with cancelled_on_disconnect(receive), deadline_in(timeout_seconds):
                reply = await api.call(**vars(request))
        except TimeoutError as error:
            metrics.timed_out_requests.labels("deadline").inc()
            raise DeadlineExceeded(f"The answer took longer than {timeout_seconds:g} s") from error
        except ClientDisconnected:
            return
        await send_response(send, api.route.success_status, reply.model_dump_json().encode())


def _requested_timeout_seconds(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == _TIMEOUT_HEADER:
            if not value.isdigit() or not 0 < len(value.lstrip(b"0")) <= _MAX_DIGITS:
                raise MalformedRequest(
                    f"{TIMEOUT_HEADER} is a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS:,}"
                )
            return int(value) / 1_000
    return math.inf
