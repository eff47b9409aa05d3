"""The API side of a runner: calls it, names its failures, and knows whether it is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol

import aiohttp
from bentoml.exceptions import BentoMLException

import metrics
from coalescing import Bounds, Coalescer, NotCalled
from errors import RunnerUnavailable
from values import Classification, RunnerDescription, Version

logger = logging.getLogger("bentoml.sentiment.runner")

# Every way in which a runner was seen to fail: its error replies, a lost connection, a time-out.
RUNNER_FAILURES = (BentoMLException, aiohttp.ClientError, OSError, TimeoutError)

DESCRIBE_TIMEOUT_SECONDS = 2.0
STARTING_POLL_SECONDS = 0.1
READY_POLL_SECONDS = 2.0
FIRST_ANSWER_SECONDS = 5.0
# A call costs about 0.5 ms of CPU on either side, whatever it carries. Four may be under way, so
# that the runner has the next texts at hand; what arrives meanwhile shares the next call.
CALL_BOUNDS = Bounds(calls=4, call_items=64, waiting_items=10_000)


class RunnerApi(Protocol):
    """What `bentoml.depends` gives for a runner, here or in another process."""

    def classify(
        self, texts: list[str], timeout_seconds: float
    ) -> Awaitable[list[Classification]]: ...

    def describe(self) -> Awaitable[RunnerDescription]: ...


class RunnerClient:
    """One version's runner, seen from the API.

    A background task asks the runner who it is: often while it starts, then every two seconds.
    """

    def __init__(self, version: Version, runner: RunnerApi, *, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long after its arrival a text is still worth computing."""
        self.version: Version = version
        self.last_description: RunnerDescription | None = None
        self.ready = False
        self._heard = asyncio.Event()
        self._runner = runner
        self._calls = Coalescer(
            self._call, CALL_BOUNDS, timeout_seconds=timeout_seconds, cancel_abandoned=True
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

    async def described(self) -> RunnerDescription:
        """The same; in a process that has just started, it waits a moment to hear.

        Raises:
            RunnerUnavailable: nothing was heard.
        """
        if self.last_description is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                    await self._heard.wait()
        return self.description()

    async def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify `texts`, at least one; whoever else waits for the runner shares the call.

        Raises:
            RunnerUnavailable: it is down, overloaded, or failed.
        """
        try:
            return await self._calls.get(texts)
        except NotCalled as error:
            metrics.abandoned_texts.labels(self.version).inc(len(texts))
            raise RunnerUnavailable(
                f"Model {self.version} has too much to do; try again"
            ) from error

    async def _call(self, texts: list[str], timeout_seconds: float) -> list[Classification]:
        deadline = time.monotonic() + timeout_seconds
        try:
            try:
                return await self._classify(texts, timeout_seconds)
            except aiohttp.ClientConnectionError as error:
                # Its process died; the next one, which is on its way, computes the same.
                logger.warning("runner %s broke off, asking it again: %r", self.version, error)
                return await self._classify(texts, deadline - time.monotonic())
        except RUNNER_FAILURES as error:
            logger.warning("runner %s failed: %r", self.version, error)
            raise RunnerUnavailable(f"Model {self.version} cannot answer now; try again") from error

    async def _classify(self, texts: list[str], timeout_seconds: float) -> list[Classification]:
        metrics.runner_calls.labels(self.version).inc()
        async with asyncio.timeout(timeout_seconds):
            return await self._runner.classify(texts, timeout_seconds)

    async def refresh(self) -> None:
        """Ask the runner who it is, and remember the answer or its absence."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                self.last_description = await self._runner.describe()
            self._heard.set()
        except (*RUNNER_FAILURES, AttributeError) as error:
            # AttributeError: BentoML gives its proxy the methods only after the startup hooks.
            if self.ready:
                logger.warning("runner %s no longer answers: %r", self.version, error)
            self.ready = False
        else:
            if not self.ready:
                logger.info("runner %s is ready: %s", self.version, self.last_description)
            self.ready = True

    async def _keep_watching(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(READY_POLL_SECONDS if self.ready else STARTING_POLL_SECONDS)
