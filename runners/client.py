"""The API's client of a runner: admission, calls, and the runner's state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

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
from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.request_context import remaining_seconds
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners.admission import Admission, AdmissionRejected, QueueBounds
from runners.desired_state import DesiredState
from runners.lanes import Lane, estimated_tokens, lane_of
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES

logger = logging.getLogger("bentoml.sentiment.runner")

DESCRIBE_TIMEOUT_SECONDS = 2.0
STARTING_POLL_SECONDS = 0.1
READY_POLL_SECONDS = 1.0
FIRST_DESCRIPTION_SECONDS = 5.0
# A call costs about 0.5 ms of CPU on either side, whatever it carries. Four calls may be in flight
# to a host, so that it always has texts at hand; texts that arrive meanwhile share the next call. A
# bulk request is a call of its own: it has enough texts to spread the cost over.
CALLS_PER_HOST, TEXTS_PER_CALL = 4, 64


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    logger.warning("a call to a runner is repeated: %s: %s", type(error).__name__, error)


# When a runner's process dies, each connection that was kept open to it breaks once. The process
# that replaces it can compute the same texts.
RETRY: dict[str, Any] = {
    "retry": retry_if_exception_type(CONNECTION_FAILURES),
    "stop": stop_after_attempt(20),
    "wait": wait_exponential(0.002, max=0.2),
    "before_sleep": _log_retry,
    "reraise": True,
}


class RunnerBackend(Protocol):
    """The hosts of one version's runner, or the runner in this process."""

    def dispatch(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> Awaitable[list[Classification]]: ...

    def describe(self) -> Awaitable[RunnerDescription]: ...

    def load(self, tag: str | None, generation: int) -> Awaitable[RunnerDescription]: ...


class _TracedText(NamedTuple):
    """A text, and the span of the request that it belongs to."""

    text: str
    span: SpanContext | None


class RunnerClient:
    """The client of one version's runner.

    A background task asks the runner for its description: often while it starts, then every second.
    """

    def __init__(
        self,
        version: Version,
        backend: RunnerBackend,
        bounds: QueueBounds,
        *,
        timeout_seconds: float,
    ) -> None:
        """`bounds` are those of this process; `timeout_seconds` caps deadlines."""
        self.version: Version = version
        self.last_description: RunnerDescription | None = None
        self.ready = False
        self._desired = DesiredState()
        self._is_described = asyncio.Event()
        self._refresh_now = asyncio.Event()
        self._backend = backend
        self._timeout_seconds = timeout_seconds
        self._admission = Admission(bounds)
        self._calls = Coalescer(
            self._call,
            Bounds(CALLS_PER_HOST, TEXTS_PER_CALL, waiting_items=bounds.texts),
            timeout_seconds=timeout_seconds,
            cancel_abandoned=True,
        )
        self._poller: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._poller = asyncio.create_task(self._poll(), name=f"poll-runner-{self.version}")

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    def description(self) -> RunnerDescription:
        """The last description that the runner gave.

        Raises:
            RunnerUnavailable: the runner has never answered.
        """
        if self.last_description is None:
            raise RunnerUnavailable(f"Model {self.version} is still loading")
        return self.last_description

    async def wait_until_described(self) -> RunnerDescription:
        """The last description; waits a moment for the first one.

        Raises:
            RunnerUnavailable: the runner did not answer within `FIRST_DESCRIPTION_SECONDS`.
        """
        if self.last_description is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_DESCRIPTION_SECONDS):
                    await self._is_described.wait()
        return self.description()

    @property
    def is_full(self) -> bool:
        """Whether `admit` would refuse a single text."""
        return self._admission.is_full("interactive")

    @contextlib.contextmanager
    def admit(self, texts: Sequence[str]) -> Iterator[None]:
        """Reserve room for `texts`, at least one; classify them inside the block.

        Raises:
            Overloaded: they would wait too long.
            DeadlineExceeded: they would wait past the deadline of the request.
        """
        tokens = estimated_tokens(texts)
        lane = lane_of(tokens)
        try:
            with self._admission.admit(
                lane, texts=len(texts), tokens=tokens, deadline_seconds=self._deadline_seconds()
            ):
                yield
        except AdmissionRejected as error:
            raise self._problem_of(error, lane) from error

    def _deadline_seconds(self) -> float:
        return min(remaining_seconds(), self._timeout_seconds)

    def _problem_of(self, error: AdmissionRejected, lane: Lane) -> Overloaded | DeadlineExceeded:
        metrics.shed_requests.labels(error.reason).inc()
        retry_after_seconds = max(1, math.ceil(error.wait_seconds))
        if error.reason == "deadline":
            # Not Overloaded, which makes the load shedder refuse other clients: a client that
            # allows a millisecond must not be able to do that.
            return DeadlineExceeded(
                f"Model {self.version} would not have answered in time",
                retry_after_seconds=retry_after_seconds,
            )
        return Overloaded(
            f"Model {self.version} has too much to do; try again",
            retry_after_seconds=retry_after_seconds,
            of_large=lane == "bulk",
        )

    async def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify `texts`, which were admitted; other requests may share the call.

        The i-th result belongs to the i-th text.

        Raises:
            RunnerUnavailable: the runner is down, or failed.
        """
        tokens = estimated_tokens(texts)
        lane = lane_of(tokens)
        attributes = {"version": self.version, "texts": len(texts), "lane": lane}
        try:
            with tracing.span("classify", attributes):
                span = tracing.current()
                items = [_TracedText(text, span) for text in texts]
                if lane == "bulk":
                    results = await self._call(items, self._deadline_seconds(), lane)
                else:
                    results = await self._calls.get(items)
        except CallDropped as error:
            metrics.abandoned_texts.labels(self.version).inc(len(texts))
            raise RunnerUnavailable(f"Model {self.version} was not called in time") from error
        self._admission.throughput.add(tokens)
        return results

    async def _call(
        self, items: list[_TracedText], timeout_seconds: float, lane: Lane = "interactive"
    ) -> list[Classification]:
        deadline = time.monotonic() + timeout_seconds
        texts = [item.text for item in items]
        try:
            async for attempt in AsyncRetrying(**RETRY):
                with attempt, self._span(items):
                    metrics.runner_calls.labels(self.version).inc()
                    remaining = deadline - time.monotonic()
                    async with asyncio.timeout(remaining):
                        results = await self._backend.dispatch(texts, remaining, lane)
        except RUNNER_FAILURES as error:
            logger.warning("runner %s failed: %s: %s", self.version, type(error).__name__, error)
            raise RunnerUnavailable(f"Model {self.version} cannot answer now; try again") from error
        known = self.last_description
        if known is not None and results[0].revision != known.revision:
            self._refresh_now.set()
        return results

    def _span(self, items: Sequence[_TracedText]) -> AbstractContextManager[object]:
        """The span of a call: a child of the first request, linked to the others."""
        if not tracing.is_on():
            return nullcontext()
        spans = {item.span.span_id: item.span for item in items if item.span is not None}
        first, *links = spans.values() if spans else (None,)
        attributes = {"version": self.version, "texts": len(items)}
        return tracing.span(
            "runner.call", attributes, kind=SpanKind.CLIENT, parent=first, links=links
        )

    def set_desired(self, desired: DesiredModel, as_of: float) -> None:
        """Have every host of the runner hold this model, also after a restart.

        `as_of` is the `time.monotonic()` at which the database was read, -inf if it was not.
        """
        if self._desired.set(desired, as_of):
            self._refresh_now.set()

    async def refresh(self) -> None:
        """Get the runner's description, and request the desired model if needed."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                description = await self._backend.describe()
                if (desired := self._desired.to_request(description)) is not None:
                    description = await self._backend.load(*desired)
        except RUNNER_FAILURES as error:
            if self.ready:
                logger.warning(
                    "runner %s no longer answers: %s: %s",
                    self.version, type(error).__name__, error,
                )  # fmt: skip
            self.ready = False
        else:
            self._apply(description)
            if not self.ready:
                logger.info(
                    "runner %s is ready: model %s on %s, on %d hosts",
                    self.version, description.tag, description.engine, description.hosts,
                )  # fmt: skip
            self.ready = True
        # Set each time: of the values that the worker processes report, the newest counts.
        metrics.runner_up.labels(self.version).set(self.ready)

    def _apply(self, description: RunnerDescription) -> None:
        before, self.last_description = self.last_description, description
        if before is not None and before.revision != description.revision:
            metrics.revision_info.labels(self.version, before.revision, before.engine).set(0)
        metrics.revision_info.labels(self.version, description.revision, description.engine).set(1)
        self._calls.max_calls = CALLS_PER_HOST * description.hosts
        if description.tokens_per_second:
            self._admission.throughput.seed(description.tokens_per_second)
        self._is_described.set()

    async def _poll(self) -> None:
        while True:
            self._refresh_now.clear()
            await self.refresh()
            await asyncio.sleep(STARTING_POLL_SECONDS)
            if self.ready:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READY_POLL_SECONDS):
                        await self._refresh_now.wait()
