"""Loads the model that a runner serves, and replaces it without a pause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from bentoml.exceptions import NotFound

from core import metrics
from core.background import run_in_background
from core.gc import collect_and_return
from core.heartbeat import Work
from core.settings import Settings
from core.types import DesiredModel, EngineName, RunnerDescription, Version
from runners.batching import TokenBatcher
from runners.chosen_model import Choice, ChosenModel, chosen_model
from runners.engines.choice import EngineUnavailable
from runners.engines.fastest import find_fastest
from runners.integrity import ModelDamaged
from runners.loading import GoldenCheckFailed, Loaded, load
from runners.model_store import candidates
from runners.no_model import NoModel, without_model

logger = logging.getLogger("bentoml.sentiment.runner")


# Errors with messages of ours, which are safe to show. Of others only the type is shown.
_SHOWN_ERRORS = (NotFound, EngineUnavailable, ModelDamaged, GoldenCheckFailed)

# The API takes twice as many.
_MAX_REASON_CHARACTERS = 1_000

# The service is ready by then, and a first start has ended.
_CHOOSE_AFTER_SECONDS = 10.0

# What is damaged may be mended. To look at its files takes less than a second of a core.
_RETRY_SECONDS = 15.0


async def _no_choice(_tag: str) -> None: ...


class _Kept(NamedTuple):
    """What a start finds: a model, or why there is none."""

    description: RunnerDescription
    batcher: TokenBatcher | NoModel
    choice: Choice


class Slot:
    """Holds one model, and two while one replaces the other: never more.

    The next model is loaded, warmed and checked against its golden set while the current one
    serves. Then new calls go to it; the current one answers the calls that it has and is dropped.
    If the next model cannot be loaded or fails the check, the current one goes on serving.

    Where none can be loaded at the start, calls are refused until one can, or another is requested.
    """

    def __init__(
        self,
        version: Version,
        configured: str,
        chosen: ChosenModel,
        load: Callable[[str, bool], Loaded],
        find_fastest: Callable[[str], Awaitable[EngineName | None]] = _no_choice,
        *,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """`load` takes a tag, and whether to check the model's golden set.

        `find_fastest` takes a tag and names the engine that `load` would choose by what is measured
        then; None if there is nothing to choose. Without a model, one is looked for every
        `retry_seconds`.
        """
        self._version: Version = version
        self._configured = configured
        self._chosen = chosen
        self._load = load
        self._find_fastest = find_fastest
        self._choosing: asyncio.Task[None] | None = None
        # Held while another model or engine replaces the current one.
        self._replacing = asyncio.Lock()
        self._draining: TokenBatcher | NoModel = NoModel()
        self._next: DesiredModel | None = None
        self._changing: asyncio.Task[None] | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._retry_seconds = retry_seconds
        # Why a tag was refused last, of those that are tried again.
        self._refusals: dict[str, str] = {}
        self.description: RunnerDescription
        kept = chosen.read()
        self.is_first = kept is None  # nothing says which model served before
        self._choice = kept or Choice(DesiredModel(None, 0))
        found = self._load_kept()
        self.batcher, self._choice = found.batcher, found.choice
        self._describe(found.description)

    def _load_kept(self) -> _Kept:
        """Load the model of the choice, or what may serve instead of it."""
        choice, version = self._choice, self._version
        wanted, *_ = tags = choice.tags(self._configured)
        generation = choice.desired.generation
        try:
            (description, batcher), load_error = self._load_any(
                tags, checked=False, forgiven=Exception
            )
        except Exception as error:  # noqa: BLE001  whatever it is may be mended
            reason = self._note_refusal(tags[-1], error)
            description = without_model(version, wanted, reason)
            return _Kept(replace(description, observed_generation=generation), NoModel(), choice)
        if load_error is None:
            choice = choice.loaded(choice.desired, description.tag)
        else:
            choice = choice._replace(tag=wanted, substitute=description.tag)
            logger.error(
                "%s: %s serves instead, until a rollout or MODEL_%s names another model",
                version, description.tag, version.upper(),
            )  # fmt: skip
        self._chosen.save(choice)
        description = replace(description, observed_generation=generation, load_error=load_error)
        return _Kept(description, batcher, choice)

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
            reason = self._note_refusal(first, error)
        loaded, _ = self._load_any(others, checked=checked, forgiven=forgiven)
        return loaded, reason

    def request_load(self, desired: DesiredModel) -> None:
        """Begin to load a model; of several requests the last one counts."""
        if self.description.has_observed(desired):
            return
        self._next = desired
        if self._changing is None or self._changing.done():
            self._changing = run_in_background("ModelChange", self._load_requested, until_done=True)

    def start(self) -> None:
        """Begin to look for what is better than what the start found: an engine, or a model."""
        if not self.description.has_model:
            logger.error(
                "%s: no model can be loaded, which is tried again every %g s; a rollout or "
                "MODEL_%s may name another",
                self._version, self._retry_seconds, self._version.upper(),
            )  # fmt: skip
            self._retrying = run_in_background("ModelRetry", self._retry, until_done=True)
        self.choose_engine()

    async def _retry(self) -> None:
        while not self.description.has_model:
            await asyncio.sleep(self._retry_seconds)
            async with self._replacing:
                if not self.description.has_model:
                    await self._try_kept()

    async def _try_kept(self) -> None:
        found = await asyncio.to_thread(self._load_kept)
        # Meanwhile another one may have been requested, which is loaded next.
        loading = self.description.loading
        if found.description.has_model:
            self.batcher, self._choice = found.batcher, found.choice
            self._describe(found.description, loading=loading)
            logger.info("%s: %s serves", self._version, found.description.tag)
            self.choose_engine()
            collect_and_return()
        elif found.description.observed_generation == self.description.observed_generation:
            self._describe(found.description, loading=loading)

    def choose_engine(self, *, after_seconds: float = _CHOOSE_AFTER_SECONDS) -> None:
        """Begin to find out the fastest engine on this CPU, and then change to it."""

        async def choose() -> None:
            await asyncio.sleep(after_seconds)
            await self._choose_engine()

        if self._choosing is None or self._choosing.done():
            self._choosing = run_in_background("EngineChoice", choose, until_done=True)

    def progress(self) -> Mapping[int, Work]:
        """The work of the threads that compute for the model that serves, or that served before."""
        return {**self._draining.progress(), **self.batcher.progress()}

    def close(self) -> None:
        for task in (self._changing, self._choosing, self._retrying):
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
        # Another model may come meanwhile.
        while self.description.has_model and tag != self.description.tag:
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
        await self._drain(previous)
        del previous
        collect_and_return()

    async def _drain(self, previous: TokenBatcher | NoModel) -> None:
        """Wait for the end of what served before, until which no other model follows this one."""
        self._draining = previous
        try:
            await asyncio.to_thread(previous.drain)
        finally:
            self._draining = NoModel()

    async def _change(self, desired: DesiredModel) -> None:
        tags = self._choice.tags_of(desired, self._configured)
        self._refusals.clear()
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
                load_error=self._note_refusal(tags[0], error),
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
                await self._drain(previous)
                del previous
                collect_and_return()

    def _note_refusal(self, tag: str, error: Exception) -> str:
        """Log why a model is refused, once; returns the part that is safe to show."""
        is_shown = isinstance(error, _SHOWN_ERRORS)
        reason = str(error) if is_shown else type(error).__name__
        if self._refusals.get(tag) != reason:
            self._refusals[tag] = reason
            trace = None if is_shown else error
            logger.error("%s: %s is refused: %s", self._version, tag, reason, exc_info=trace)
        return f"{tag}: {reason}"[:_MAX_REASON_CHARACTERS]

    def _describe(self, description: RunnerDescription, **changes: Any) -> None:
        self.description = replace(description, **changes)
        held = self.description
        is_another = held.has_model and held.load_error is not None
        metrics.model_refused.labels(self._version).set(is_another)
        metrics.capacity.labels(self._version).set(self.description.tokens_per_second or 0.0)


def slot_of(version: Version, settings: Settings) -> Slot:
    """The slot of a runner's process, with the last chosen or configured model."""
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
    if slot.is_first and slot.description.has_model and (models := candidates(configured)) > 1:
        logger.warning(
            "%s: nothing in DATA_FOLDER/models says which of %d models served before, so the "
            "newest serves: %s; name another one in MODEL_%s",
            version, models, slot.description.tag, version.upper(),
        )  # fmt: skip
    return slot
