"""Answers the API's calls in a runner, in front of BentoML's dispatch.

BentoML's dispatch unpickles a body that says it is a pickle, which is to run what the sender wrote.
No body reaches it here: what does not say that it is a message of our wire is refused unread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bentoml.exceptions import BentoMLException, ServiceUnavailable
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from core import tracing
from core.asgi import ClientDisconnected, cancelled_on_disconnect, send_response
from runners import wire

logger = logging.getLogger("bentoml.sentiment.runner")

Answer = Callable[[bytes], Awaitable[bytes]]

CLASSIFY_PATH = "/classify"

_CONTENT_TYPE = wire.CONTENT_TYPE.encode()
# These have no body that anything reads.
_BODILESS = frozenset({"GET", "HEAD"})


class _Refused(Exception):
    """The request is at fault."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class RunnerEndpoints:
    """Answers POSTs to the routes that are the keys of `answers`; only GETs reach the framework.

    415 for another content type, on every path; 400 for a malformed message, 413 for one that is
    too large; 503 when the runner cannot take more; 500 for what was not expected.
    """

    def __init__(
        self, app: ASGIApp, answers: Callable[[], Mapping[str, Answer]], max_body_bytes: int
    ) -> None:
        """`answers` is asked when a request comes: before, there is no runner yet."""
        self._app = app
        self._answers = answers
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] != "http" or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
        elif _values(scope, b"content-type") != [_CONTENT_TYPE]:
            await _send(send, 415, f"A runner takes {wire.CONTENT_TYPE} and nothing else")
        elif (answer := self._answers().get(scope["path"])) is None:
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
        except _Refused as error:
            await _send(send, error.status, str(error))
        except wire.WireError as error:
            logger.warning("%s is refused: %s", scope["path"], error)
            await _send(send, 400, str(error))
        except ServiceUnavailable as error:
            await _send(send, 503, error.message)
        except Exception as error:
            logger.exception("%s failed", scope["path"])
            status = error.error_code.value if isinstance(error, BentoMLException) else 500
            await _send(send, status, "An unexpected error; the log of the runner has it")
        else:
            await send_response(send, 200, reply, wire.CONTENT_TYPE)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        # The server has read the number before.
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
        raise _Refused(413, f"A call may have at most {self._max_body_bytes:,} bytes")


def answers_of(runner: Any) -> dict[str, Answer]:
    """What a `SentimentRunner` answers, by route.

    Called are its plain methods: bound ones would go through BentoML's client of itself.
    """
    cls = type(runner)

    async def classify(body: bytes) -> bytes:
        texts, timeout_seconds, lane = wire.decode_classify(body)
        results = await cls.classify.func(runner, texts, timeout_seconds, lane)
        return wire.encode_classifications(results)

    async def describe(body: bytes) -> bytes:
        wire.decode_describe(body)
        return wire.encode_description(await cls.describe.func(runner))

    async def load(body: bytes) -> bytes:
        desired = wire.decode_load(body)
        return wire.encode_description(await cls.load.func(runner, *desired))

    return {
        cls.classify.route: classify,
        cls.describe.route: describe,
        cls.load.route: load,
    }


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value.strip().lower() for each, value in scope["headers"] if each == name]


def _span(scope: Scope) -> AbstractContextManager[object]:
    """The span of a traced call, part of the trace of the request that caused it."""
    if not tracing.is_on() or scope["path"] != CLASSIFY_PATH:
        return nullcontext()
    attributes = {"http.request.method": "POST", "http.route": CLASSIFY_PATH}
    parent = tracing.told_by(scope["headers"])
    return tracing.span(f"POST {CLASSIFY_PATH}", attributes, kind=SpanKind.SERVER, parent=parent)


async def _send(send: Send, status: int, text: str) -> None:
    await send_response(send, status, text.encode(), "text/plain; charset=utf-8")
