"""Asks the challenger about what the champion has answered, when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core import metrics
from core.errors import DeadlineExceeded, Overloaded, ServiceError
from core.request_context import deadline_in
from core.types import Prediction

logger = logging.getLogger("bentoml.sentiment.rollout")

# What comes while so many wait is not asked about: a sample is as good.
MAX_WAITING = 100
AT_ONCE = 2
TIMEOUT_SECONDS = 2.0


class Shadow:
    """Takes predictions and never fails: what goes wrong is counted, and is the challenger's."""

    def __init__(self, ask: Callable[[Prediction], Awaitable[None]]) -> None:
        """`ask` asks the challenger about a prediction, and records what it says."""
        self._ask = ask
        self._waiting = asyncio.Queue[Prediction](MAX_WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_asking(), name=f"shadow-{number}")
            for number in range(AT_ONCE)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def offer(self, prediction: Prediction) -> None:
        try:
            self._waiting.put_nowait(prediction)
        except asyncio.QueueFull:
            metrics.shadow_texts.labels("skipped").inc()

    async def _keep_asking(self) -> None:
        while True:
            prediction = await self._waiting.get()
            metrics.shadow_texts.labels(await self._outcome(prediction)).inc()

    async def _outcome(self, prediction: Prediction) -> str:
        try:
            async with deadline_in(TIMEOUT_SECONDS):
                await self._ask(prediction)
        except (Overloaded, DeadlineExceeded):
            return "skipped"
        except (ServiceError, TimeoutError):
            return "failed"
        except Exception:  # the edge of a loop, which goes on
            logger.exception("a shadow failed in a way that nobody foresaw")
            return "failed"
        return "compared"
