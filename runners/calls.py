"""The calls of one API process to a runner: repeated where a connection breaks, and traced."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bentoml.exceptions import BentoMLException
from opentelemetry.trace import SpanKind
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from core import metrics, tracing
from core.errors import DeadlineExceeded, RunnerUnavailable, describe_error
from core.types import Classification, LongText, Version
from runners.lanes import Lane
from runners.transport import (
    CONNECTION_FAILURES,
    RUNNER_FAILURES,
    CallLost,
    RunnerApi,
)

logger = logging.getLogger("bentoml.sentiment.runner")

# When a runner's process dies, the connections to it break. The process that replaces it can
# compute the same texts.
RETRY: dict[str, Any] = {
    "retry": retry_if_exception_type(CONNECTION_FAILURES),
    "stop": stop_after_attempt(20),
    "wait": wait_exponential(0.002, max=0.2),
    "reraise": True,
}


# After so many runners that may have died of its texts, a call is not repeated any more.
MAX_LOST = 3


class LostAgain(BentoMLException):
    """Each runner that got the call was lost while it had it."""


class RunnerCalls:
    """Sends texts to a runner."""

    def __init__(self, version: Version, runner: RunnerApi, *, timeout_seconds: float) -> None:
        self._version: Version = version
        self._runner = runner
        self._timeout_seconds = timeout_seconds

    async def send(
        self,
        texts: Sequence[str],
        lane: Lane,
        deadline_seconds: float,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Have `texts`, at least one, classified.

        Raises:
            RunnerUnavailable: the runner is down, or failed.
            DeadlineExceeded: the deadline of a bulk request passed.
        """
        # A small request that is past its deadline is cancelled; it is no failure of the runner.
        seconds = deadline_seconds if lane == "bulk" else self._timeout_seconds
        deadline = time.monotonic() + seconds
        attempts = None
        try:
            try:
                return await self._attempt(texts, lane, deadline, long_text)
            except CONNECTION_FAILURES as error:
                # Made only here: the first attempt of nearly every call succeeds.
                attempts = _Attempts(self._attempt, error)
                return await AsyncRetrying(**RETRY)(attempts, texts, lane, deadline, long_text)
        except RUNNER_FAILURES as error:
            lost = attempts.lost if attempts is not None else 0
            if lane == "bulk" and time.monotonic() >= deadline:
                # The deadline is the request's own, which may be a millisecond: no runner failed.
                raise DeadlineExceeded("The model did not answer in time", lost=lost) from error
            logger.warning("runner %s failed: %s", self._version, describe_error(error))
            message = f"Model {self._version} cannot answer now; try again"
            raise RunnerUnavailable(message, lost=lost) from error

    async def _attempt(
        self, texts: Sequence[str], lane: Lane, deadline: float, long_text: LongText
    ) -> list[Classification]:
        metrics.runner_calls.labels(self._version).inc()
        attributes = {"version": self._version, "texts": len(texts)}
        with tracing.span("runner.call", attributes, kind=SpanKind.CLIENT):
            return await self._runner.classify(
                list(texts), deadline - time.monotonic(), lane, long_text
            )


class _Attempts:
    """Repeats a call whose first attempt failed, until too many runners were lost with it."""

    def __init__(
        self, attempt: Callable[..., Awaitable[list[Classification]]], first: Exception
    ) -> None:
        self._attempt = attempt
        self.lost = int(isinstance(first, CallLost))

    async def __call__(self, *call: Any) -> list[Classification]:
        try:
            return await self._attempt(*call)
        except CallLost as error:
            self.lost += 1
            if self.lost >= MAX_LOST:
                raise LostAgain(f"{self.lost} runners were lost, one after the other") from error
            raise
