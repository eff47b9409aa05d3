"""Loads the model that a runner serves, and replaces it without a pause."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bentoml.exceptions import NotFound
from opentelemetry.trace import SpanContext

from core import metrics
from core.background import run_in_background
from core.heartbeat import Work
from core.settings import Settings
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners import golden_set
from runners.batching import TokenBatcher
from runners.chosen_model import Choice, ChosenModel, chosen_model
from runners.classifier import Classifier
from runners.cpu import at_low_priority, usable_cpus
from runners.engines.choice import EngineUnavailable, choose_engine
from runners.integrity import ModelDamaged, differences
from runners.lanes import Lane
from runners.model_store import find_model
from runners.queue import TextQueue

logger = logging.getLogger("bentoml.sentiment.runner")


class GoldenCheckFailed(RuntimeError):
    """A model does not answer its golden set as it did when it was saved; says how."""


# Errors with messages of ours, which are safe to show. Of others only the type is shown.
_SHOWN_ERRORS = (NotFound, EngineUnavailable, ModelDamaged, GoldenCheckFailed)

# A warm model, and the batcher with the threads that compute it.
Loaded = tuple[RunnerDescription, TokenBatcher]


class Slot:
    """Holds one model, and two while one replaces the other: never more.

    The next model is loaded, warmed and checked against its golden set while the current one
    serves. Then new calls go to it; the current one answers the calls that it has and is dropped.
    If the next model cannot be loaded or fails the check, the current one goes on serving.
    """

    def __init__(
        self,
        version: Version,
        configured: str,
        chosen: ChosenModel,
        load: Callable[[str, bool], Loaded],
    ) -> None:
        """`load` takes a tag, and whether to check the model's golden set."""
        self._version: Version = version
        self._configured = configured
        self._chosen = chosen
        self._load = load
        self._next: DesiredModel | None = None
        self._changing: asyncio.Task[None] | None = None
        self.description: RunnerDescription
        choice = chosen.read() or Choice(DesiredModel(None, 0))
        (description, self.batcher), load_error = self._load_first(choice.tags(configured))
        generation = choice.desired.generation
        self._describe(description, observed_generation=generation, load_error=load_error)
        if load_error is None:
            choice = Choice(choice.desired, description.tag)
        else:
            choice = Choice(choice.desired, choice.tags(configured)[0], description.tag)
            logger.error(
                "%s: %s serves instead, until a rollout or MODEL_%s names another model",
                version, description.tag, version.upper(),
            )  # fmt: skip
        chosen.save(choice)

    def _load_first(self, tags: Sequence[str]) -> tuple[Loaded, str | None]:
        """Load the first tag that can be loaded; returns also why the first one cannot."""
        first, *others = tags
        try:
            return self._load(first, False), None
        except Exception as error:
            if not others:
                raise
            reason = self._log_refusal(first, error)
        loaded, _ = self._load_first(others)
        return loaded, reason

    def request_load(self, desired: DesiredModel) -> None:
        """Begin to load a model; of several requests the last one counts."""
        if self.description.has_observed(desired):
            return
        self._next = desired
        if self._changing is None or self._changing.done():
            self._changing = run_in_background("ModelChange", self._load_requested, until_done=True)

    def submit(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane,
        trace: SpanContext | None,
    ) -> asyncio.Future[list[Classification]]:
        """Put `texts` into the queue of the model that serves now (`TokenBatcher.submit`)."""
        return self.batcher.submit(texts, timeout_seconds=timeout_seconds, lane=lane, trace=trace)

    def progress(self) -> Mapping[int, Work]:
        """The work of the threads that compute for the model that serves now."""
        return self.batcher.progress()

    def close(self) -> None:
        if self._changing is not None:
            self._changing.cancel()
        self.batcher.close()

    async def _load_requested(self) -> None:
        while (desired := self._next) is not None:
            self._next = None
            self.description = replace(self.description, loading=desired)
            await self._change(desired)

    async def _change(self, desired: DesiredModel) -> None:
        tag = desired.tag or self._configured
        try:
            loaded = await asyncio.to_thread(self._load, tag, True)
        except Exception as error:  # noqa: BLE001  whatever fails, the current model goes on
            self._describe(
                self.description,
                observed_generation=desired.generation,
                loading=None,
                load_error=self._log_refusal(tag, error),
            )
            metrics.model_changes.labels(self._version, "refused").inc()
        else:
            previous = self.batcher
            description, self.batcher = loaded
            self._describe(description, observed_generation=desired.generation)
            metrics.model_changes.labels(self._version, "done").inc()
            logger.info("%s: %s serves", self._version, self.description.tag)
            try:
                await asyncio.to_thread(self._chosen.save, Choice(desired, description.tag))
            finally:
                await asyncio.to_thread(previous.drain)
                del previous
                gc.collect()

    def _log_refusal(self, tag: str, error: Exception) -> str:
        """Log why a model is refused; returns the part that is safe to show."""
        logger.error("%s: %s is refused", self._version, tag, exc_info=error)
        reason = str(error) if isinstance(error, _SHOWN_ERRORS) else type(error).__name__
        return f"{tag}: {reason}"

    def _describe(self, description: RunnerDescription, **changes: Any) -> None:
        self.description = replace(description, **changes)
        metrics.model_refused.labels(self._version).set(self.description.load_error is not None)


def load(tag: str, version: Version, settings: Settings, *, check_golden_set: bool) -> Loaded:
    """Load a model of the store, ready to classify as `version`, and describe it.

    Raises:
        bentoml.exceptions.NotFound: it is not in the model store.
        EngineUnavailable: none of its engines can be loaded.
        ModelDamaged: its files are not those that were saved.
        GoldenCheckFailed: `check_golden_set` is set, and its answers are wrong.
    """
    started = time.perf_counter()
    model = find_model(tag)
    if (damage := differences(model.folder, model.digests)) is not None:
        raise ModelDamaged(f"{model.tag}: {damage}; import or save it again")
    streams = settings.runner_threads or usable_cpus()
    engine = at_low_priority(
        lambda: choose_engine(
            model, settings.engine, streams=streams, mkldnn=settings.mkldnn_enable
        )
    )
    classifier = Classifier(model, engine)
    tokens_per_second = streams * classifier.warm_up()
    if check_golden_set:
        error = golden_set.check(classifier.infer, golden_set.read_golden_set(model.folder))
        if error is not None:
            raise GoldenCheckFailed(error)
    queue = TextQueue(settings.max_queued_texts, settings.max_queued_tokens)
    batcher = TokenBatcher(classifier, version, queue, streams=streams)
    seconds = time.perf_counter() - started
    logger.info(
        "%s: %s on %s, %d streams, warm after %.1f s, about %.0f tokens/s",
        version, model.tag, engine.name, streams, seconds, tokens_per_second,
    )  # fmt: skip
    description = RunnerDescription(
        version, model.revision, engine.name, model.labels, tokens_per_second, hosts=1,
        tag=model.tag, observed_generation=0, loading=None, load_error=None, converged=True,
        max_tokens=model.max_tokens, licence=model.licence,
    )  # fmt: skip
    return description, batcher


def slot_of(version: Version, settings: Settings) -> Slot:
    """The slot of a runner's process, with the last chosen or configured model.

    Raises the errors of `load`: without a model there is nothing to serve.
    """

    def load_tag(tag: str, check_golden_set: bool) -> Loaded:
        return load(tag, version, settings, check_golden_set=check_golden_set)

    return Slot(version, settings.model_tag(version), chosen_model(version, settings), load_tag)
