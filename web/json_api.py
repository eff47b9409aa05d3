"""Serves the POST APIs of the Bento service: parse the body, call within a deadline, render.

BentoML's own dispatch finds out for each request what it already knew: it derives the method's
signature, imports modules, binds injections, and streams the reply in one part. That was half the
CPU time of a cached request (docs/decisions/0010). It also answers every exception in a shape of
its own. So requests are taken here, in front of it; the service's declarations stay what decides
on routes, bodies and replies.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from core import metrics
from core.errors import DeadlineExceeded, MalformedRequest
from core.request_context import deadline_in, set_caller
from web.asgi_io import read_body, send_response
from web.rate_limit import charge, client_identity
from web.schemas.predictions import RequestBody

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 999_999_999
_TIMEOUT_HEADER = TIMEOUT_HEADER.lower().encode()
_MOST_DIGITS = len(str(MAX_TIMEOUT_MS))


@dataclass(frozen=True, slots=True)
class JsonApi:
    """One POST API of the service; `call` gets the fields of `request` by name."""

    route: str
    name: str
    summary: str
    request: type[RequestBody]
    reply: type[BaseModel]
    call: Callable[..., Awaitable[BaseModel]]
    success_status: int = 200
    further_problems: tuple[int, ...] = ()
    is_audited: bool = False  # who calls it is written down


class JsonApiMiddleware:
    """Answers POSTs to the routes that are the keys of `apis`; all else is the framework's."""

    def __init__(
        self, app: ASGIApp, apis: Callable[[], Mapping[str, JsonApi]], timeout_seconds: float
    ) -> None:
        self._app = app
        self._apis = apis
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, for ProblemMiddleware to tell."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        api = self._apis().get(scope["path"]) if is_post else None
        if api is None:
            await self._app(scope, receive, send)
            return
        if api.is_audited:
            set_caller(client_identity(scope))
        request = api.request.parse(await read_body(receive))
        await charge(scope, request.cost - 1)
        timeout_seconds = min(self._timeout_seconds, _asked_timeout_seconds(scope))
        try:
            async with deadline_in(timeout_seconds):
                reply = await api.call(**vars(request))
        except TimeoutError as error:
            metrics.timed_out_requests.labels("deadline").inc()
            raise DeadlineExceeded(f"The answer took longer than {timeout_seconds:g} s") from error
        await send_response(send, api.success_status, reply.model_dump_json().encode())


def _asked_timeout_seconds(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == _TIMEOUT_HEADER:
            if not value.isdigit() or not 0 < len(value.lstrip(b"0")) <= _MOST_DIGITS:
                raise MalformedRequest(
                    f"{TIMEOUT_HEADER} is a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS:,}"
                )
            return int(value) / 1_000
    return math.inf
