"""The API side of a runner: calls it, names its failures, and knows whether it is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from opentelemetry.trace import SpanContext, SpanKind
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
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
from runners.hosts import CONNECTION_FAILURES, RUNNER_FAILURES, RunnerApi
from runners.lanes import Lane, estimated_tokens, lane_of

logger = logging.getLogger("bentoml.sentiment.runner")

DESCRIBE_TIMEOUT_SECONDS = 2.0
STARTING_POLL_SECONDS = 0.1
READY_POLL_SECONDS = 1.0
FIRST_ANSWER_SECONDS = 5.0
# A call costs about 0.5 ms of CPU on either side, whatever it carries. Four may be under way to a
# host, so that it has the next texts at hand; what arrives meanwhile shares the next call. A bulk
# request is a call of its own: its cost is spread over enough texts, and nobody waits for it.
CALLS, CALL_TEXTS = 4, 64
# A connection breaks off when the runner's process dies; the next one, which is on its way, can
# compute the same. Each connection that was kept to the dead one breaks off once.
AGAIN: dict[str, Any] = {
    "retry": retry_if_exception_type(CONNECTION_FAILURES),
    "stop": stop_after_attempt(20),
    "wait": wait_exponential(0.002, max=0.2),
    "before_sleep": before_sleep_log(logger, logging.WARNING),
    "reraise": True,
}


class _Asked(NamedTuple):
    """A text, and the span of the request that it is of."""

    text: str
    asker: SpanContext | None


class RunnerClient:
    """One version's runner, seen from the API.

    A background task asks the runner who it is: often while it starts, then every second.
    """

    def __init__(
        self, version: Version, runner: RunnerApi, bounds: QueueBounds, *, timeout_seconds: float
    ) -> None:
        """`bounds` are for what this process asks; `timeout_seconds` is the longest deadline."""
        self.version: Version = version
        self.last_description: RunnerDescription | None = None
        self.ready = False
        # What it is to hold; None while that is not known.
        self.desired: DesiredModel | None = None
        self._desired_as_of = -math.inf
        # The latest wish that the runner knew of, and since when this process has seen it do so.
        self._latest_generation, self._latest_since = 0, -math.inf
        self._heard = asyncio.Event()
        self._look_again = asyncio.Event()
        self._runner = runner
        self._timeout_seconds = timeout_seconds
        self._admission = Admission(bounds)
        self._calls = Coalescer(
            self._call,
            Bounds(CALLS, CALL_TEXTS, waiting_items=bounds.texts),
            timeout_seconds=timeout_seconds,
            cancel_abandoned=True,
        )
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watch = asyncio.create_task(self._keep_watching(), name=f"watch-{self.version}")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def description(self) -> RunnerDescription:
        """What the runner holds, as last heard.

        Raises:
            RunnerUnavailable: it has never answered.
        """
        if self.last_description is None:
            raise RunnerUnavailable(f"Model {self.version} is still loading")
        return self.last_description

    async def wait_until_described(self) -> RunnerDescription:
        """The same; in a process that has just started, it waits a moment to hear.

        Raises:
            RunnerUnavailable: nothing was heard.
        """
        if self.last_description is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                    await self._heard.wait()
        return self.description()

    @property
    def is_full(self) -> bool:
        """Whether `classify` would refuse a single text."""
        return self._admission.is_full("interactive")

    def check(self, texts: Sequence[str]) -> None:
        """Raises Overloaded or DeadlineExceeded: `classify` would, as things stand."""
        tokens = estimated_tokens(texts)
        lane = lane_of(tokens)
        try:
            self._admission.check(
                lane,
                texts=len(texts),
                tokens=tokens,
                deadline_seconds=self._deadline_seconds(),
            )
        except AdmissionRejected as error:
            raise self._refused(error, lane) from error

    def _deadline_seconds(self) -> float:
        return min(remaining_seconds(), self._timeout_seconds)

    def _refused(self, refusal: AdmissionRejected, lane: Lane) -> Overloaded | DeadlineExceeded:
        metrics.shed_requests.labels(refusal.reason).inc()
        retry_after_seconds = max(1, math.ceil(refusal.wait_seconds))
        if refusal.reason == "deadline":
            # Not Overloaded: who asks for an answer within a millisecond shuts no door to others.
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
        """Classify `texts`, at least one; whoever else waits for the runner may share the call.

        Raises:
            Overloaded: they would wait too long.
            DeadlineExceeded: they would wait past the deadline of the request.
            RunnerUnavailable: it is down, or failed.
        """
        tokens = estimated_tokens(texts)
        lane = lane_of(tokens)
        deadline_seconds = self._deadline_seconds()
        about = {"version": self.version, "texts": len(texts), "lane": lane}
        try:
            with (
                tracing.span("classify", about),
                self._admission.admitted(
                    lane, texts=len(texts), tokens=tokens, deadline_seconds=deadline_seconds
                ),
            ):
                asker = tracing.current()
                asked = [_Asked(text, asker) for text in texts]
                if lane == "bulk":
                    return await self._call(asked, deadline_seconds, lane)
                return await self._calls.get(asked)
        except AdmissionRejected as error:
            raise self._refused(error, lane) from error
        except CallDropped as error:
            metrics.abandoned_texts.labels(self.version).inc(len(texts))
            raise RunnerUnavailable(f"Model {self.version} was not asked in time") from error

    async def _call(
        self, asked: list[_Asked], timeout_seconds: float, lane: Lane = "interactive"
    ) -> list[Classification]:
        deadline = time.monotonic() + timeout_seconds
        texts = [each.text for each in asked]
        try:
            async for attempt in AsyncRetrying(**AGAIN):
                with attempt, self._span(asked):
                    answers = await self._classify(texts, deadline - time.monotonic(), lane)
        except RUNNER_FAILURES as error:
            logger.warning("runner %s failed: %r", self.version, error)
            raise RunnerUnavailable(f"Model {self.version} cannot answer now; try again") from error
        return answers

    def _span(self, asked: Sequence[_Asked]) -> AbstractContextManager[object]:
        """Of the call, which is part of the first request that shares it, and linked to others."""
        if not tracing.is_on():
            return nullcontext()
        askers = {each.asker.span_id: each.asker for each in asked if each.asker is not None}
        first, *links = askers.values() if askers else (None,)
        about = {"version": self.version, "texts": len(asked)}
        return tracing.span("runner.call", about, kind=SpanKind.CLIENT, parent=first, links=links)

    async def _classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        metrics.runner_calls.labels(self.version).inc()
        async with asyncio.timeout(timeout_seconds):
            answers = await self._runner.classify(texts, timeout_seconds, lane)
        known = self.last_description
        if known is not None and answers[0].revision != known.revision:
            self._look_again.set()
        return answers

    def set_desired(self, desired: DesiredModel, as_of: float) -> None:
        """Have the runner hold this model, on every host and after every restart of it.

        `as_of` is the `time.monotonic()` of when the database was asked for it, -inf if it was not.
        """
        self._desired_as_of = as_of
        if desired != self.desired:
            self.desired = desired
            self._look_again.set()

    async def refresh(self) -> None:
        """Ask the runner who it is, and remember the answer or its absence."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                description = await self._runner.describe()
                if self.desired is not None and self._must_tell(self.desired, description):
                    description = await self._runner.load(*self.desired)
            self._remember(description)
            self._calls.calls = CALLS * description.hosts
            if description.tokens_per_second:
                self._admission.pace.seed(description.tokens_per_second)
            self._heard.set()
        except RUNNER_FAILURES as error:
            if self.ready:
                logger.warning("runner %s no longer answers: %r", self.version, error)
            self.ready = False
        else:
            if not self.ready:
                logger.info("runner %s is ready: %s", self.version, self.last_description)
            self.ready = True
        # Each time: of what the workers tell, the newest counts.
        metrics.runner_up.labels(self.version).set(self.ready)

    def _must_tell(self, desired: DesiredModel, description: RunnerDescription) -> bool:
        """Whether the runner is to hear of it, and from this process.

        One that has heard of a later wish has it from a process that knows of a later policy. What
        this one knows counts only if the database says it after that: it was taken back to an
        earlier state. Two processes would else have a runner change back and forth.
        """
        if description.latest_generation != self._latest_generation:
            self._latest_generation, self._latest_since = (
                description.latest_generation,
                time.monotonic(),
            )
        if self._latest_generation > desired.generation:
            return self._desired_as_of > self._latest_since
        return not description.has_observed(desired)

    def _remember(self, description: RunnerDescription) -> None:
        before, self.last_description = self.last_description, description
        if before is not None and before.revision != description.revision:
            _tell_revision(self.version, before, 0)
        _tell_revision(self.version, description, 1)

    async def _keep_watching(self) -> None:
        while True:
            self._look_again.clear()
            await self.refresh()
            await asyncio.sleep(STARTING_POLL_SECONDS)
            if self.ready:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READY_POLL_SECONDS):
                        await self._look_again.wait()


def _tell_revision(version: Version, description: RunnerDescription, value: int) -> None:
    metrics.revision_info.labels(version, description.revision, description.engine).set(value)
