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
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from core import metrics
from core.asgi import Answer, ClientDisconnected, cancelled_on_disconnect, send_response
from core.errors import DeadlineExceeded, MalformedRequest, RequestError
from core.request_context import RequestContext, context_of, deadline_in
from core.text_limits import MAX_TEXT_CHARACTERS
from web.body import JsonBodyReader
from web.idempotency import KEY_HEADER, IdempotentAnswers, KeyedRequest, key_of
from web.query import check_parameters
from web.routes import Route
from web.schemas.predictions import RequestBody

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 999_999_999
# A body counts as a text for so many bytes. None of a valid one has more, with any escapes: a
# character takes 12 at most.
BYTES_OF_TEXT = max(65_536, 12 * MAX_TEXT_CHARACTERS)
_TIMEOUT_HEADER = TIMEOUT_HEADER.lower().encode()
_KEY_HEADER = KEY_HEADER.lower().encode()
_MAX_DIGITS = len(str(MAX_TIMEOUT_MS))


class ParsedRequest(Protocol):
    @property
    def cost(self) -> int: ...


class PostApi(Protocol):
    """One POST endpoint, of the service's own contract or of another system's."""

    @property
    def route(self) -> Route: ...

    def parse(self, body: bytes, scope: Scope) -> Any:
        """A `ParsedRequest`.

        Raises:
            RequestError: the body is unreadable, or breaks a rule.
        """

    async def answer(self, request: Any) -> Answer: ...

    def operation(self) -> Operation:
        """The parts of its OpenAPI operation."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How the OpenAPI document describes a POST endpoint.

    `content` has the schemas of the request's media types other than JSON; `reply_types` are the
    media types in which the reply may come beside JSON.
    """

    name: str
    summary: str
    tag: str
    request: type[BaseModel]
    reply: type[BaseModel]
    content: Mapping[str, Mapping[str, Any]]
    reply_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JsonApi:
    """One POST API of the service; `call` gets the fields of `request` by name."""

    route: Route
    name: str
    summary: str
    request: type[RequestBody]
    reply: type[BaseModel]
    call: Callable[..., Awaitable[BaseModel]]

    def parse(self, body: bytes, _scope: Scope) -> RequestBody:
        return self.request.parse(body)

    async def answer(self, request: RequestBody) -> Answer:
        reply = await self.call(**vars(request))
        return Answer(reply.model_dump_json().encode())

    def operation(self) -> Operation:
        tag = "admin" if self.route.scope == "admin" else "predictions"
        return Operation(self.name, self.summary, tag, self.request, self.reply, {})


class JsonApiMiddleware:
    """Answers POSTs to the routes that are the keys of `apis`; the framework answers the rest.

    It gets HEAD as GET, and the server leaves out the body (RFC 9110, 9.3.2): FastAPI would answer
    with 405, and monitors and link checkers send it first.
    """

    def __init__(
        self,
        app: ASGIApp,
        apis: Callable[[], Mapping[str, PostApi]],
        body_reader: JsonBodyReader,
        timeout_seconds: float,
        repeated: Callable[[], IdempotentAnswers],
    ) -> None:
        self._app = app
        self._repeated = repeated
        self._apis = apis
        self._body_reader = body_reader
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ServiceError, which ProblemMiddleware renders."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        api = self._apis().get(scope["path"]) if is_post else None
        if api is None:
            if scope["type"] == "http" and scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
            await self._app(scope, receive, send)
            return
        check_parameters(scope.get("query_string", b""), ())
        context = context_of(scope)
        bill = _Bill(context)
        try:
            async with self._body_reader.reading(scope, receive, api.route.media_types) as body:
                await bill.add_size()
                request: ParsedRequest = api.parse(body, scope)
        except RequestError:
            await bill.add_size(refuses=False)  # of a body that was decoded in vain
            raise
        allowed_seconds, keys = _options(scope)
        timeout_seconds = min(self._timeout_seconds, allowed_seconds)
        context.has_own_deadline = allowed_seconds < self._timeout_seconds
        compute = partial(_compute, api, request, bill, receive, timeout_seconds)
        try:
            if keys and api.route.is_repeatable:
                keyed = KeyedRequest.of(scope, key_of(keys), body)
                answer = await self._repeated().answer(scope, keyed, compute, timeout_seconds)
            else:
                answer = await compute()
        except ClientDisconnected:
            return
        await send_response(send, api.route.success_status, *answer)


class _Bill:
    """What a request counts against its caller's limit: more than 1 if it takes more to answer."""

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self._counted = 1  # when it was let in

    async def add(self, cost: int, *, refuses: bool = True) -> None:
        """Raise the whole count to `cost`.

        Raises:
            RateLimited: so much is not left.
        """
        charge, more = self.context.charge, cost - self._counted
        if charge is not None and more > 0:
            self._counted = cost  # also if it is refused: it is asked for once
            await charge(more, refuses=refuses)

    async def add_size(self, *, refuses: bool = True) -> None:
        """Count the bytes, before they are parsed; no more than valid texts count that have them.

        Raises:
            RateLimited: so much is not left.
        """
        await self.add(self.context.body_bytes // BYTES_OF_TEXT, refuses=refuses)


async def _compute(
    api: PostApi, request: ParsedRequest, bill: _Bill, receive: Receive, timeout_seconds: float
) -> Answer:
    try:
        async with cancelled_on_disconnect(receive), deadline_in(timeout_seconds):
            await bill.add(request.cost)
            return await api.answer(request)
    except TimeoutError as error:
        reason = "client_deadline" if bill.context.has_own_deadline else "deadline"
        metrics.timed_out_requests.labels(reason).inc()
        raise DeadlineExceeded(f"The answer took longer than {timeout_seconds:g} s") from error


def _options(scope: Scope) -> tuple[float, list[bytes]]:
    """The seconds that a request allows, infinite by default, and its idempotency keys."""
    seconds = math.inf
    keys: list[bytes] = []
    for name, value in scope["headers"]:
        if name == _TIMEOUT_HEADER and seconds == math.inf:
            digits = value.lstrip(b"0")  # Python makes no number of thousands of zeros
            if not value.isdigit() or not 0 < len(digits) <= _MAX_DIGITS:
                raise MalformedRequest(
                    f"{TIMEOUT_HEADER} is a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS:,}"
                )
            seconds = int(digits) / 1_000
        elif name == _KEY_HEADER:
            keys.append(value)
    return seconds, keys
