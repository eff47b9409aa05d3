"""The calls of one API process to a runner: shared by requests, repeated, traced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from opentelemetry.trace import SpanContext, SpanKind
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from core import metrics, tracing
from core.coalescing import Bounds, CallDropped, Coalescer
from core.errors import DeadlineExceeded, RunnerUnavailable, describe_error
from core.types import Classification, Version
from runners.lanes import Lane
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES, RunnerApi

logger = logging.getLogger("bentoml.sentiment.runner")

# A call costs about 0.5 ms of CPU on either side, whatever it carries. Four calls may be in flight
# to a host, so that it always has texts at hand; texts that arrive meanwhile share the next call. A
# bulk request is a call of its own: it has enough texts to spread the cost over.
CALLS_PER_HOST, TEXTS_PER_CALL = 4, 64


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        logger.warning("a call to a runner is repeated: %s", describe_error(error))


# When a runner's process dies, each connection that was kept open to it breaks once. The process
# that replaces it can compute the same texts.
RETRY: dict[str, Any] = {
    "retry": retry_if_exception_type(CONNECTION_FAILURES),
    "stop": stop_after_attempt(20),
    "wait": wait_exponential(0.002, max=0.2),
    "before_sleep": _log_retry,
    "reraise": True,
}


class _TracedText(NamedTuple):
    """A text, and the span of the request that it belongs to."""

    text: str
    span: SpanContext | None


class RunnerCalls:
    """Sends texts to a runner; small requests that wait share the next call."""

    def __init__(
        self,
        version: Version,
        runner: RunnerApi,
        *,
        max_waiting_texts: int,
        timeout_seconds: float,
    ) -> None:
        self._version: Version = version
        self._runner = runner
        self._coalescer = Coalescer(
            self._call,
            Bounds(CALLS_PER_HOST, TEXTS_PER_CALL, waiting_items=max_waiting_texts),
            timeout_seconds=timeout_seconds,
            cancel_abandoned=True,
        )

    def set_hosts(self, hosts: int) -> None:
        """Let as many calls be in flight as this number of hosts can use."""
        self._coalescer.max_calls = CALLS_PER_HOST * hosts

    async def send(
        self, texts: Sequence[str], lane: Lane, deadline_seconds: float
    ) -> list[Classification]:
        """Have `texts`, at least one, classified; bulk ones in a call of their own.

        Raises:
            RunnerUnavailable: the runner is down, or failed.
            DeadlineExceeded: the deadline of a bulk request passed.
        """
        span = tracing.current()
        items = [_TracedText(text, span) for text in texts]
        if lane == "bulk":
            return await self._call(items, deadline_seconds, lane)
        try:
            return await self._coalescer.get(items)
        except CallDropped as error:
            metrics.abandoned_texts.labels(self._version).inc(len(texts))
            raise RunnerUnavailable(f"Model {self._version} was not called in time") from error

    async def _call(
        self, items: list[_TracedText], timeout_seconds: float, lane: Lane = "interactive"
    ) -> list[Classification]:
        deadline = time.monotonic() + timeout_seconds
        texts = [item.text for item in items]
        try:
            async for attempt in AsyncRetrying(**RETRY):
                with attempt, self._span(items):
                    metrics.runner_calls.labels(self._version).inc()
                    remaining = deadline - time.monotonic()
                    async with asyncio.timeout(remaining):
                        results = await self._runner.classify(texts, remaining, lane)
        except RUNNER_FAILURES as error:
            if lane == "bulk" and time.monotonic() >= deadline:
                # The deadline is the request's own, which may be a millisecond: no runner failed.
                raise DeadlineExceeded(f"Model {self._version} did not answer in time") from error
            logger.warning("runner %s failed: %s", self._version, describe_error(error))
            message = f"Model {self._version} cannot answer now; try again"
            raise RunnerUnavailable(message) from error
        return results

    def _span(self, items: Sequence[_TracedText]) -> AbstractContextManager[object]:
        """The span of a call: a child of the first request, linked to the others."""
        if not tracing.is_on():
            return nullcontext()
        spans = {item.span.span_id: item.span for item in items if item.span is not None}
        first, *links = spans.values() if spans else (None,)
        attributes = {"version": self._version, "texts": len(items)}
        return tracing.span(
            "runner.call", attributes, kind=SpanKind.CLIENT, parent=first, links=links
        )
