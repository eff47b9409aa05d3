"""Loads the model that a runner serves, and replaces it without a pause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bentoml.exceptions import NotFound

from core import metrics
from core.background import run_in_background
from core.gc import collect_and_return
from core.heartbeat import Work
from core.settings import Settings
from core.types import DesiredModel, EngineName, RunnerDescription, Version
from runners.chosen_model import Choice, ChosenModel, chosen_model
from runners.engines.choice import EngineUnavailable
from runners.engines.fastest import find_fastest
from runners.integrity import ModelDamaged
from runners.loading import GoldenCheckFailed, Loaded, load
from runners.model_store import candidates

logger = logging.getLogger("bentoml.sentiment.runner")


# Errors with messages of ours, which are safe to show. Of others only the type is shown.
_SHOWN_ERRORS = (NotFound, EngineUnavailable, ModelDamaged, GoldenCheckFailed)

# The API takes twice as many.
_MAX_REASON_CHARACTERS = 1_000

# The service is ready by then, and a first start has ended.
_CHOOSE_AFTER_SECONDS = 10.0


async def _no_choice(_tag: str) -> None: ...


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
        find_fastest: Callable[[str], Awaitable[EngineName | None]] = _no_choice,
    ) -> None:
        """`load` takes a tag, and whether to check the model's golden set.

        `find_fastest` takes a tag and names the engine that `load` would choose by what is measured
        then; None if there is nothing to choose.
        """
        self._version: Version = version
        self._configured = configured
        self._chosen = chosen
        self._load = load
        self._find_fastest = find_fastest
        self._choosing: asyncio.Task[None] | None = None
        # Held while another model or engine replaces the current one.
        self._replacing = asyncio.Lock()
        self._next: DesiredModel | None = None
        self._changing: asyncio.Task[None] | None = None
        self.description: RunnerDescription
        kept = chosen.read()
        self.is_first = kept is None  # nothing says which model served before
        choice = kept or Choice(DesiredModel(None, 0))
        (description, self.batcher), load_error = self._load_any(
            choice.tags(configured), checked=False, forgiven=Exception
        )
        generation = choice.desired.generation
        self._describe(description, observed_generation=generation, load_error=load_error)
        if load_error is None:
            choice = choice.loaded(choice.desired, description.tag)
        else:
            wanted = choice.tags(configured)[0]
            choice = choice._replace(tag=wanted, substitute=description.tag)
            logger.error(
                "%s: %s serves instead, until a rollout or MODEL_%s names another model",
                version, description.tag, version.upper(),
            )  # fmt: skip
        chosen.save(choice)
        self._choice = choice

    def _load_any(
        self, tags: Sequence[str], *, checked: bool, forgiven: type[Exception]
    ) -> tuple[Loaded, str | None]:
        """Load the first tag that does not fail in the `forgiven` way; `checked`: its golden set.

        Returns also why the first of all failed, None if it did not.
        """
        first, *others = tags
        try:
            return self._load(first, checked), None
        except forgiven as error:
            if not others:
                raise
            reason = self._log_refusal(first, error)
        loaded, _ = self._load_any(others, checked=checked, forgiven=forgiven)
        return loaded, reason

    def request_load(self, desired: DesiredModel) -> None:
        """Begin to load a model; of several requests the last one counts."""
        if self.description.has_observed(desired):
            return
        self._next = desired
        if self._changing is None or self._changing.done():
            self._changing = run_in_background("ModelChange", self._load_requested, until_done=True)

    def choose_engine(self, *, after_seconds: float = _CHOOSE_AFTER_SECONDS) -> None:
        """Begin to find out the fastest engine on this CPU, and then change to it."""

        async def choose() -> None:
            await asyncio.sleep(after_seconds)
            await self._choose_engine()

        if self._choosing is None or self._choosing.done():
            self._choosing = run_in_background("EngineChoice", choose, until_done=True)

    def progress(self) -> Mapping[int, Work]:
        """The work of the threads that compute for the model that serves now."""
        return self.batcher.progress()

    def close(self) -> None:
        for task in (self._changing, self._choosing):
            if task is not None:
                task.cancel()
        self.batcher.close()

    async def _load_requested(self) -> None:
        while (desired := self._next) is not None:
            self._next = None
            self.description = replace(self.description, loading=desired)
            async with self._replacing:
                await self._change(desired)
            self.choose_engine()

    async def _choose_engine(self) -> None:
        tag = None
        while tag != self.description.tag:  # another model came meanwhile
            tag = self.description.tag
            try:
                fastest = await self._find_fastest(tag)
                async with self._replacing:
                    current = self.description
                    if tag == current.tag and fastest not in (None, current.engine):
                        await self._change_engine(tag)
            except Exception:
                # Whatever fails, the current engine goes on.
                logger.exception("%s: no other engine is chosen for %s", self._version, tag)

    async def _change_engine(self, tag: str) -> None:
        previous = self.batcher
        description, self.batcher = await asyncio.to_thread(self._load, tag, True)
        engine, speed = description.engine, description.tokens_per_second
        self._describe(self.description, engine=engine, tokens_per_second=speed)
        logger.info("%s: %s serves on %s", self._version, tag, engine)
        await asyncio.to_thread(previous.drain)
        del previous
        collect_and_return()

    async def _change(self, desired: DesiredModel) -> None:
        tags = self._choice.tags_of(desired, self._configured)
        try:
            # A tag that the store has is not replaced by another one.
            (description, batcher), _ = await asyncio.to_thread(
                partial(self._load_any, tags, checked=True, forgiven=NotFound)
            )
        except Exception as error:  # noqa: BLE001  whatever fails, the current model goes on
            self._describe(
                self.description,
                observed_generation=desired.generation,
                loading=None,
                load_error=self._log_refusal(tags[0], error),
            )
            metrics.model_changes.labels(self._version, "refused").inc()
        else:
            previous, self.batcher = self.batcher, batcher
            self._describe(description, observed_generation=desired.generation)
            metrics.model_changes.labels(self._version, "done").inc()
            logger.info("%s: %s serves", self._version, self.description.tag)
            self._choice = self._choice.loaded(desired, description.tag)
            try:
                await asyncio.to_thread(self._chosen.save, self._choice)
            finally:
                await asyncio.to_thread(previous.drain)
                del previous
                collect_and_return()

    def _log_refusal(self, tag: str, error: Exception) -> str:
        """Log why a model is refused; returns the part that is safe to show."""
        logger.error("%s: %s is refused", self._version, tag, exc_info=error)
        reason = str(error) if isinstance(error, _SHOWN_ERRORS) else type(error).__name__
        return f"{tag}: {reason}"[:_MAX_REASON_CHARACTERS]

    def _describe(self, description: RunnerDescription, **changes: Any) -> None:
        self.description = replace(description, **changes)
        metrics.model_refused.labels(self._version).set(self.description.load_error is not None)
        metrics.capacity.labels(self._version).set(self.description.tokens_per_second or 0.0)


def slot_of(version: Version, settings: Settings) -> Slot:
    """The slot of a runner's process, with the last chosen or configured model.

    Raises the errors of `load`: without a model there is nothing to serve.
    """
    configured = settings.model_tag(version)

    def load_tag(tag: str, check_golden_set: bool) -> Loaded:
        return load(tag, version, settings, check_golden_set=check_golden_set)

    slot = Slot(
        version,
        configured,
        chosen_model(version, settings),
        load_tag,
        partial(find_fastest, settings=settings),
    )
    if slot.is_first and (models := candidates(configured)) > 1:
        logger.warning(
            "%s: nothing in DATA_FOLDER/models says which of %d models served before, so the "
            "newest serves: %s; name another one in MODEL_%s",
            version, models, slot.description.tag, version.upper(),
        )  # fmt: skip
    return slot
