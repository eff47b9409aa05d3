"""Shadow traffic: the challenger classifies a text after the champion's reply has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core import metrics
from core.background import Background
from core.errors import DeadlineExceeded, Overloaded, ServiceError, TextTooLong
from core.request_context import deadline_in
from core.types import Prediction

logger = logging.getLogger("bentoml.sentiment.rollout")

# A full queue skips predictions: a sample is enough for a comparison.
MAX_QUEUED = 100
CONCURRENCY = 2
TIMEOUT_SECONDS = 2.0


class Shadow(Background):
    """Queues answered predictions for the challenger; counts its failures and never raises."""

    def __init__(self, compare: Callable[[Prediction], Awaitable[None]]) -> None:
        """`compare` lets the challenger classify a text, and records both predictions."""
        self._compare = compare
        self._queue = asyncio.Queue[Prediction](MAX_QUEUED)

    def offer(self, prediction: Prediction) -> None:
        """Queue an answered prediction, or skip it if the queue is full."""
        try:
            self._queue.put_nowait(prediction)
        except asyncio.QueueFull:
            metrics.shadow_texts.labels("skipped").inc()

    async def _run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(CONCURRENCY)))

    async def _work(self) -> None:
        while True:
            prediction = await self._queue.get()
            metrics.shadow_texts.labels(await self._outcome(prediction)).inc()

    async def _outcome(self, prediction: Prediction) -> str:
        try:
            async with deadline_in(TIMEOUT_SECONDS):
                await self._compare(prediction)
        except (Overloaded, DeadlineExceeded, TextTooLong):
            return "skipped"
        except (ServiceError, TimeoutError):
            return "failed"
        except Exception:  # the edge of a loop, which goes on
            logger.exception("a shadow comparison failed: unexpected error")
            return "failed"
        return "compared"
