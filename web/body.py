"""Reads a body as UTF-8; refuses other types, too many bytes, and slow clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from starlette.types import Receive, Scope

from core import metrics
from core.asgi import JSON_CONTENT_TYPE
from core.errors import (
    BodyTooLarge,
    BodyTooSlow,
    MalformedRequest,
    Overloaded,
    ServiceError,
    UnsupportedMedia,
)
from core.request_context import RequestContext, context_of
from web.body_budget import BodyBudget, HeldBody
from web.body_turns import Turns
from web.content_coding import STEP_BYTES, Turn, content_coding, decode
from web.json_text import is_plain, to_utf8

# A client that still sends does not read the answer, and gets a reset if the server hangs up. So
# the server reads and drops the rest of a refused body, up to this many bytes.
DRAIN_BYTES = 32 * 1_048_576
# The length of the JSON that tensors follow, in the binary extension of the V2 protocol.
TENSORS_HEADER = b"inference-header-content-length"
# So many of the largest bodies may come at the same time.
BUDGET_BODIES = 16


class JsonBodyReader:
    """Reads whole bodies within both limits."""

    def __init__(self, max_bytes: int, timeout_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._budget = BodyBudget(BUDGET_BODIES * max_bytes)
        self._turns = Turns()

    @asynccontextmanager
    async def reading(
        self, scope: Scope, receive: Receive, media_types: Collection[str] = (JSON_CONTENT_TYPE,)
    ) -> AsyncIterator[bytes]:
        """The whole body of a request, decoded, in UTF-8; its context gets the bytes that it took.

        It is to be parsed before the block ends, in which no other large body is: between two of
        them the event loop answers others.

        Raises:
            UnsupportedMedia: the request does not say that its body is of one of `media_types`.
            UnsupportedCoding: the body is compressed in another way than the service decodes.
            BodyTooLarge: the body is, or says it is, larger than the limit.
            Overloaded: all bodies that come now take too much memory together, or too many of the
                caller wait for their turn.
            BodyTooSlow: the body took longer than the time-out to arrive.
            MalformedRequest: the client hung up before it had sent all, or it cannot be decoded.
        """
        length, content_type, coding, is_json = _announced(scope, media_types)
        if length > self._max_bytes:
            await self._drain(receive)
            raise self._too_large()
        context = context_of(scope)
        async with AsyncExitStack() as stack:
            held = stack.enter_context(self._budget.body_of(context.caller))
            body = await self._receive(receive, held)
            context.body_bytes = len(body)

            async def turn() -> None:
                await stack.enter_async_context(self._turns.of(context.caller))

            if coding is not None:
                body = await self._decoded(body, coding, context, turn)
            elif len(body) > STEP_BYTES:
                await turn()
            if is_json and (";" in content_type or not is_plain(body)):
                body = to_utf8(body, content_type)
            yield body

    async def _decoded(
        self, body: bytes, coding: str, context: RequestContext, turn: Turn
    ) -> bytes:
        decoded = bytearray()
        try:
            await decode(body, coding, self._max_bytes, decoded, turn)
        finally:
            context.body_bytes = max(len(body), len(decoded))
        return bytes(decoded)

    async def _receive(self, receive: Receive, held: HeldBody) -> bytes:
        refusal: ServiceError
        parts: list[bytes] = []
        received = 0
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise MalformedRequest("The body ended before all of it had come")
                    part = message.get("body", b"")
                    received += len(part)
                    complete = not message.get("more_body", False)
                    if received > self._max_bytes:
                        refusal = self._too_large()
                        break
                    held.add(len(part))
                    parts.append(part)
                    if complete:
                        return b"".join(parts)
        except TimeoutError as error:
            metrics.timed_out_requests.labels("body").inc()
            raise BodyTooSlow(
                f"The request body took longer than {self._timeout_seconds:g} s to come"
            ) from error
        except Overloaded as error:
            refusal = error
        # A refused body takes no memory while its rest comes.
        parts.clear()
        held.release()
        if not complete:
            await self._drain(receive)
        raise refusal

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"A request body may have at most {self._max_bytes:,} bytes")

    async def _drain(self, receive: Receive) -> None:
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                while drained < DRAIN_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return


def _announced(scope: Scope, media_types: Collection[str]) -> tuple[int, str, str | None, bool]:
    """The Content-Length (0 without it), the Content-Type, the coding (None without one).

    Last comes whether the body is JSON and nothing else: tensors may follow it.

    Raises:
        UnsupportedMedia: the request does not say that its body is of one of `media_types`.
        UnsupportedCoding: the body is compressed in another way than the service decodes.
    """
    content_types: list[str] = []
    length = coding = b""
    has_tensors = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_types.append(value.decode("latin-1"))
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            coding += b"," + value
        elif name == TENSORS_HEADER:
            has_tensors = True
    found = [content_type.partition(";")[0].strip().lower() for content_type in content_types]
    if not content_types and "" in media_types:
        found = [""]
        content_types = [""]
    elif len(found) != 1 or not found[0] or found[0] not in media_types:
        sent = f", not {found[0][:100] or 'an empty content type'}" if found else ""
        accepted = [*filter(None, media_types)]
        refusal = UnsupportedMedia(f"Send one Content-Type: {' or '.join(accepted)}{sent}")
        refusal.headers = {"Accept-Post": ", ".join(accepted)}
        raise refusal
    return (
        int(length) if length.isdigit() else 0,
        content_types[0],
        content_coding(coding) if coding else None,
        found[0] == JSON_CONTENT_TYPE and not has_tensors,
    )
