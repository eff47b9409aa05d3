"""What a runner serves, and how another model takes its place between two batches."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import replace

from bentoml.exceptions import NotFound

from core import metrics
from core.settings import Settings
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners.batching import TokenBatcher
from runners.chosen_model import ChosenModel, chosen_model
from runners.engines.choice import EngineUnavailable
from runners.lanes import Lane
from runners.loading import GoldenCheckFailed, load

logger = logging.getLogger("bentoml.sentiment.runner")

# Their messages are ours, and may be shown; of others only the log tells more.
_TOLD = (NotFound, EngineUnavailable, GoldenCheckFailed)


# A model that is warm, and the threads that compute with it.
Loaded = tuple[RunnerDescription, TokenBatcher]


class Slot:
    """Holds one model, and for the time of a change two: never more.

    The next one is loaded, warmed and tried beside the one that serves. Then calls go to it, and
    the other answers what it was asked before and is dropped. What cannot be loaded, or does not
    pass, is refused, and the one that serves goes on.
    """

    def __init__(
        self,
        version: Version,
        configured: str,
        chosen: ChosenModel,
        load: Callable[[str, bool], Loaded],
    ) -> None:
        """`load` takes a tag, and whether it is to be tried; `chosen` outlives this process."""
        self._version: Version = version
        self._configured = configured
        self._chosen = chosen
        self._load = load
        self._next: DesiredModel | None = None
        self._changing: asyncio.Task[None] | None = None
        self.description: RunnerDescription
        desired = chosen.read() or DesiredModel(None, 0)
        refused = None
        try:
            loaded = load(desired.tag or configured, False)
        except Exception as error:
            if desired.tag is None:
                raise
            refused = self._refusal(desired.tag, error)
            loaded = load(configured, False)
        description, self._batcher = loaded
        self._describe(
            replace(description, observed_generation=desired.generation, load_error=refused)
        )

    async def classify(
        self, texts: list[str], *, timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        """As `TokenBatcher.classify`, by the model that serves when the call comes."""
        return await self._batcher.classify(texts, timeout_seconds=timeout_seconds, lane=lane)

    def ask(self, desired: DesiredModel) -> None:
        """Begin to fulfil a wish, on the running event loop; of several, the last one counts."""
        if self.description.has_observed(desired):
            return
        self._next = desired
        if self._changing is None or self._changing.done():
            self._changing = asyncio.create_task(self._keep_changing(), name="model-change")

    def close(self) -> None:
        if self._changing is not None:
            self._changing.cancel()
        self._batcher.close()

    async def _keep_changing(self) -> None:
        while (desired := self._next) is not None:
            self._next = None
            self.description = replace(self.description, loading=desired)
            await self._change(desired)

    async def _change(self, desired: DesiredModel) -> None:
        tag = desired.tag or self._configured
        try:
            loaded = await asyncio.to_thread(self._load, tag, True)
        except Exception as error:  # noqa: BLE001  whatever it is: what serves goes on
            refused = self._refusal(tag, error)
            self._describe(
                replace(
                    self.description,
                    observed_generation=desired.generation,
                    loading=None,
                    load_error=refused,
                )
            )
            metrics.model_changes.labels(self._version, "refused").inc()
        else:
            before = self._batcher
            description, self._batcher = loaded
            self._describe(replace(description, observed_generation=desired.generation))
            metrics.model_changes.labels(self._version, "done").inc()
            logger.info("%s: %s serves", self._version, self.description.tag)
            await asyncio.to_thread(self._chosen.save, desired)
            await asyncio.to_thread(before.drain)
            del before
            gc.collect()

    def _refusal(self, tag: str, error: Exception) -> str:
        logger.error("%s: %s is refused", self._version, tag, exc_info=error)
        reason = str(error) if isinstance(error, _TOLD) else type(error).__name__
        return f"{tag}: {reason}"

    def _describe(self, description: RunnerDescription) -> None:
        self.description = description
        metrics.model_refused.labels(self._version).set(description.load_error is not None)


def slot_of(version: Version, settings: Settings) -> Slot:
    """The slot of a runner's process, with the model that was chosen last, or else configured.

    Raises what `load` raises: without a model there is nothing to serve.
    """

    def load_tag(tag: str, tried: bool) -> Loaded:
        return load(tag, version, settings, tried=tried)

    return Slot(version, settings.model_tag(version), chosen_model(version, settings), load_tag)
