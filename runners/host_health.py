"""One host of a runner: its health, and the work that this process gave it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

from core.errors import describe_error
from core.types import Classification, DesiredModel, LongText, RunnerDescription
from runners.lanes import Lane
from runners.transport import CONNECTION_FAILURES, RUNNER_FAILURES, CallLost, RemoteRunner

logger = logging.getLogger("bentoml.sentiment.runner")

PROBE_TIMEOUT_SECONDS = 1.0
# One timeout may be a pause; a host that is cut off misses the next probe too.
UNHEALTHY_AFTER = 2
# A host that fails is done sooner than others, and would look idle. After so many failures without
# an answer between them it comes after the others for so long. Fewer may be the fault of a text.
FAILING_AFTER = 3
LAST_SECONDS = 5.0


class HostLost(CallLost):
    """A call was cancelled because its host no longer answers."""


class Host:
    """One runner host."""

    def __init__(self, url: str, runner: RemoteRunner) -> None:
        self.url = url
        self.runner = runner
        # May be called: it answers, and has a model.
        self.is_up = False
        # It answered the last time it was asked; it may have no model.
        self.answers = False
        # It has had the model that other hosts have, since it is up.
        self.is_settled = False
        self._failures = 0
        self._failed_at = -math.inf
        self.description: RunnerDescription | None = None
        self._missed_probes = 0
        self._tokens = 0
        self._last_call_at = 0.0
        self._calls: set[asyncio.Timeout] = set()

    @property
    def workload(self) -> tuple[bool, float, float]:
        """Whether it is failing, the seconds of work that it has, the time of its last call.

        The work is what this process gave it. The host with the smallest workload gets the next
        call: the one that will be done first; of idle hosts, the one that was called longest ago.
        """
        throughput = (self.description and self.description.tokens_per_second) or math.nan
        work = self._tokens / throughput if throughput > 0 else float(self._tokens)
        is_failing = (
            self._failures >= FAILING_AFTER and time.monotonic() - self._failed_at < LAST_SECONDS
        )
        return is_failing, work, self._last_call_at

    @property
    def has_answered(self) -> bool:
        """Whether it answered the last probes that count, with a model.

        A call that was lost since then may be the fault of its texts, or of one connection.
        """
        has_model = self.description is not None and self.description.has_model
        return has_model and (self.answers or self.is_up)

    @property
    def is_idle(self) -> bool:
        return not self._calls

    async def call(
        self,
        texts: list[str],
        tokens: int,
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Have the host classify `texts`; `tokens` are added to its workload.

        Raises:
            HostLost: `cancel_calls` was called.
        """
        cancellation = asyncio.timeout(None)
        self._calls.add(cancellation)
        self._tokens += tokens
        self._last_call_at = time.monotonic()
        try:
            async with cancellation:
                results = await self.runner.classify(texts, timeout_seconds, lane, long_text)
                self._failures = 0
                return results
        except RUNNER_FAILURES as error:
            if isinstance(error, TimeoutError) and cancellation.expired():
                raise HostLost(f"{self.url} does not answer") from None
            if not isinstance(error, CONNECTION_FAILURES):  # of those, probes tell the end
                self._failures += 1
                self._failed_at = time.monotonic()
            raise
        finally:
            self._tokens -= tokens
            self._calls.discard(cancellation)

    def cancel_calls(self) -> None:
        """Cancel the calls in flight, so that other hosts can take them over."""
        for cancellation in self._calls:
            cancellation.reschedule(0.0)
        self.runner.hang_up()

    async def probe(self) -> RunnerDescription | None:
        """Note whether the host is up; returns its description, None without an answer."""
        return await self._note(self.runner.describe)

    async def load(self, desired: DesiredModel) -> RunnerDescription | None:
        """Have the host load a model; returns its description, None without an answer."""
        return await self._note(partial(self.runner.load, desired))

    async def _note(
        self, ask: Callable[[], Awaitable[RunnerDescription]]
    ) -> RunnerDescription | None:
        """Note what the answer to a request, or its lack, says of the host."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                description = await ask()
        except RUNNER_FAILURES as error:
            self._missed_probes += 1
            self.answers = False
            is_timeout = isinstance(error, TimeoutError)
            if self.is_up and (not is_timeout or self._missed_probes >= UNHEALTHY_AFTER):
                logger.warning(
                    "runner host %s no longer answers: %s", self.url, describe_error(error)
                )
                self.is_up = False
            return None
        self.is_up, self._missed_probes = description.has_model, 0
        self.answers = True
        self.description = description
        return description
