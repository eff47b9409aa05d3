"""Answers the API's calls in a runner, in front of BentoML's dispatch; refuses other callers.

BentoML's dispatch unpickles a body that is declared to be a pickle, which runs code of the sender.
Here no body reaches it: a request of another content type than the wire's is refused unread.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from bentoml.exceptions import BentoMLException, ServiceUnavailable
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from core import tracing
from core.asgi import (
    ClientDisconnected,
    came_over_loopback,
    cancelled_on_disconnect,
    send_response,
    wanted_upgrade,
)
from core.types import DesiredModel
from runners import wire
from runners.stream_endpoint import Batcher, StreamEndpoint

logger = logging.getLogger("bentoml.sentiment.runner")

Answer = Callable[[bytes], Awaitable[bytes]]

_CONTENT_TYPE = wire.CONTENT_TYPE.encode()
_KEY_HEADER = wire.KEY_HEADER.lower().encode()
# Requests without a body that BentoML would read.
_BODILESS = frozenset({"GET", "HEAD"})
READY_PATH = "/readyz"
OPEN_PATHS = frozenset({"/livez", READY_PATH, "/healthz", "/metrics"})
_PATHS = OPEN_PATHS | {*wire.CALL_PATHS, wire.STREAM_PATH}


def path_label(path: str) -> str:
    """The label of a path in metrics: a caller without a key may ask for any."""
    return path if path in _PATHS else "other"


@dataclass(frozen=True, slots=True)
class Answers:
    """What answers for a runner."""

    posts: Mapping[str, Answer]  # by route
    batcher: Callable[[], Batcher]  # of each stream
    has_model: Callable[[], bool]  # else the runner is not ready


class _BodyTooLarge(Exception):
    """The body is larger than allowed."""


class RunnerKeyMiddleware:
    """Refuses calls without one of the keys; if there is no key, calls from other machines.

    A caller of a runner can use its CPU and change its model.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _send(send, 403, refusal)

    def _refusal(self, scope: Scope) -> str | None:
        if not self._keys:
            is_allowed = came_over_loopback(scope)
            return None if is_allowed else "Set RUNNER_KEY, here and where the API runs"
        shown = dict(scope["headers"]).get(_KEY_HEADER, b"")
        is_allowed = any(hmac.compare_digest(shown, key) for key in self._keys)
        return None if is_allowed else "RUNNER_KEY is another one, or was not shown"


class RunnerEndpoints:
    """Answers streams, and POSTs to the routes in `answers`; only GETs reach BentoML.

    Replies with 415 to another content type, on every path; 400 to a malformed message and 413 to
    one that is too large; 503 when the runner is full, or has no model; 500 to an unexpected error.
    """

    def __init__(self, app: ASGIApp, answers: Callable[[], Answers], max_body_bytes: int) -> None:
        """`answers` is called for each request, because the runner is created after this."""
        self._app = app
        self._answers = answers
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == wire.STREAM_PATH and (
            upgrade := wanted_upgrade(scope, wire.STREAM_PROTOCOL)
        ):
            batcher = self._answers().batcher
            upgrade.switch(StreamEndpoint(batcher, upgrade.connections, self._max_body_bytes))
        elif scope["path"] == READY_PATH and not self._answers().has_model():
            await _send(send, 503, "No model can be loaded; see the log of the runner")
        elif scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
        elif _values(scope, b"content-type") != [_CONTENT_TYPE]:
            await _send(send, 415, f"A runner takes {wire.CONTENT_TYPE} and nothing else")
        elif (answer := self._answers().posts.get(scope["path"])) is None:
            await _send(send, 404, "A runner has no such route")
        elif scope["method"] != "POST":
            await _send(send, 405, f"{scope['path']} takes POST")
        else:
            await self._respond(answer, scope, receive, send)

    async def _respond(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope, receive)
            # A call that the API gives up is not computed.
            with _span(scope):
                async with cancelled_on_disconnect(receive):
                    reply = await answer(body)
        except ClientDisconnected:
            return
        except _BodyTooLarge:
            await _send(send, 413, f"A call may have at most {self._max_body_bytes:,} bytes")
        except wire.WireError as error:
            logger.warning("a call to %s is refused: %s", scope["path"], error)
            await _send(send, 400, str(error))
        except ServiceUnavailable as error:
            await _send(send, 503, error.message)
        except Exception as error:
            logger.exception("a call to %s failed", scope["path"])
            status = error.error_code.value if isinstance(error, BentoMLException) else 500
            await _send(send, status, "An unexpected error; see the log of the runner")
        else:
            await send_response(send, 200, reply, wire.CONTENT_TYPE)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        # The server has checked that the header is a number.
        size = sum(int(value) for value in _values(scope, b"content-length"))
        parts: list[bytes] = []
        while size <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)
            size = sum(map(len, parts))
        raise _BodyTooLarge


def answers_of(
    runner: Any, batcher: Callable[[], Batcher], has_model: Callable[[], bool]
) -> Answers:
    """What answers for a `SentimentRunner`; `batcher` answers its streams.

    They call its plain methods; a bound method would go through BentoML's client of the service.
    """
    cls = type(runner)

    async def answer_classify(body: bytes) -> bytes:
        call = wire.decode(body, wire.Classify)
        results = await cls.classify.func(
            runner, call.texts, call.timeout_seconds, call.lane, call.long_text
        )
        return wire.encode(wire.Results(results))

    async def answer_describe(body: bytes) -> bytes:
        wire.decode(body, wire.Describe)
        return wire.encode(await cls.describe.func(runner))

    async def answer_load(body: bytes) -> bytes:
        return wire.encode(await cls.load.func(runner, wire.decode(body, DesiredModel)))

    posts = {
        cls.classify.route: answer_classify,
        cls.describe.route: answer_describe,
        cls.load.route: answer_load,
    }
    return Answers(posts, batcher, has_model)


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value.strip().lower() for header, value in scope["headers"] if header == name]


def _span(scope: Scope) -> AbstractContextManager[object]:
    """The span of a traced call, part of the trace of the request that caused it."""
    if not tracing.is_on() or scope["path"] != wire.CLASSIFY_PATH:
        return nullcontext()
    path = wire.CLASSIFY_PATH
    attributes = {"http.request.method": "POST", "http.route": path}
    parent = tracing.parent_from_headers(scope["headers"])
    return tracing.span(f"POST {path}", attributes, kind=SpanKind.SERVER, parent=parent)


async def _send(send: Send, status: int, text: str) -> None:
    await send_response(send, status, text.encode(), "text/plain; charset=utf-8")
