"""Answers the calls that come over a stream (runners/stream), in a runner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

from bentoml.exceptions import BentoMLException, ServiceUnavailable
from opentelemetry.trace import Span, SpanContext, SpanKind

from core import tracing
from core.types import Classification, LongText
from runners import wire
from runners.framing import FrameReader, FrameTooLarge, FrameWriter
from runners.lanes import Lane

logger = logging.getLogger("bentoml.sentiment.runner")

# A caller that has died without a word leaves its stream; one that lives opens another.
IDLE_SECONDS = 300.0

Answer = asyncio.Future[list[Classification]]


class Batcher(Protocol):
    """What a stream needs of a `TokenBatcher`."""

    def submit(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane,
        trace: SpanContext | None,
        long_text: LongText,
    ) -> Answer: ...


class StreamEndpoint(asyncio.Protocol):
    """The runner's side of one stream.

    A call whose caller cancels it, or hangs up, is not computed. While the caller takes no answers,
    none of its calls are read.
    """

    def __init__(
        self, batcher: Callable[[], Batcher], connections: set[Any], max_frame_bytes: int
    ) -> None:
        """`batcher` is called for each call, because a change of the model changes it.

        `connections` are those that the server asks to end when it stops.
        """
        self._batcher = batcher
        self._connections = connections
        self._frames = FrameReader(max_frame_bytes)
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Answer] = {}
        self._stopping = False
        self._used_at = self._loop.time()
        self._transport: asyncio.Transport
        self._writer: FrameWriter
        self._timer: asyncio.TimerHandle

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writer = FrameWriter(self._transport)
        self._connections.add(self)
        self._timer = self._loop.call_later(IDLE_SECONDS, self._end_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's
        self._connections.discard(self)
        self._timer.cancel()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.cancel()

    def data_received(self, data: bytes) -> None:
        self._used_at = self._loop.time()
        try:
            for message in self._frames.feed(data):
                self._take(wire.decode_stream_request(message))
        except (wire.WireError, FrameTooLarge) as error:
            logger.warning("a stream is ended: %s", error)
            self._transport.abort()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def shutdown(self) -> None:
        """Take no more calls, and hang up once the last one is answered. Called by uvicorn."""
        self._stopping = True
        self._send(wire.StreamEnd(0))
        self._end_if_stopped()

    # messages

    def _take(self, request: wire.StreamRequest) -> None:
        if isinstance(request, wire.StreamCancel):
            if (call := self._calls.pop(request.number, None)) is not None:
                call.cancel()
                self._end_if_stopped()
            else:  # the caller may want to know whether its stream still leads here
                self._send(wire.StreamRefusal(request.number, 404, "no such call"))
            return
        if request.number in self._calls:
            raise wire.WireError(f"call {request.number} is still being answered")
        span = self._span(request)
        try:
            answer = self._batcher().submit(
                request.texts,
                timeout_seconds=request.timeout_seconds,
                lane=request.lane,
                trace=span.get_span_context() if span is not None else None,
                long_text=request.long_text,
            )
        except ServiceUnavailable as error:
            self._send(wire.StreamRefusal(request.number, 503, error.message))
            tracing.end(span, error)
            return
        self._calls[request.number] = answer
        answer.add_done_callback(partial(self._answer, request.number, span))

    def _answer(self, number: int, span: Span | None, answer: Answer) -> None:
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        tracing.end(span, error)
        if self._calls.pop(number, None) is None:
            return  # nobody waits
        if error is None and not all(result.is_distribution for result in answer.result()):
            error = ArithmeticError("the model gives no probabilities for a text")
        if error is None:
            self._send(wire.StreamResults(number, answer.result()))
        elif isinstance(error, ServiceUnavailable):
            self._send(wire.StreamRefusal(number, 503, error.message))
        else:
            logger.error("a call on a stream failed", exc_info=error)
            status = error.error_code.value if isinstance(error, BentoMLException) else 500
            detail = "An unexpected error; see the log of the runner"
            self._send(wire.StreamRefusal(number, status, detail))
        self._end_if_stopped()

    def _send(self, message: wire.StreamMessage) -> None:
        self._writer.send(wire.encode_streamed(message))

    # the end

    def _end_if_stopped(self) -> None:
        if self._stopping and not self._calls:
            # After the writer, whose turn comes first.
            self._loop.call_soon(self._transport.close)

    def _end_if_idle(self) -> None:
        idle_seconds = self._loop.time() - self._used_at
        if not self._calls and idle_seconds >= IDLE_SECONDS:
            self.shutdown()
        else:
            wait = max(IDLE_SECONDS - idle_seconds, 1.0)
            self._timer = self._loop.call_later(wait, self._end_if_idle)

    def _span(self, call: wire.StreamCall) -> Span | None:
        """The span of a traced call, part of the trace of the request that caused it."""
        if not tracing.is_on() or not call.trace_parent:
            return None
        return tracing.begin(
            "runner.classify",
            {"texts": len(call.texts)},
            kind=SpanKind.SERVER,
            parent=tracing.parse_trace_parent(call.trace_parent),
        )
