"""The runner services: one process per model version, with adaptive batching."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import bentoml
from bentoml.exceptions import NotFound

from core.gc import collect_and_return, freeze_gc
from core.heartbeat import heartbeat
from core.setting_checks import settings_for_serving
from core.settings import Settings
from core.tracing import start_tracing, stop_tracing
from core.types import Classification, DesiredModel, LongText, RunnerDescription, Version
from runners import wire
from runners.chosen_model import chosen_model
from runners.endpoints import Answers, answers_of
from runners.first_series import start_runner_series
from runners.lanes import Lane
from runners.model_store import find_model

CONFIG: dict[str, Any] = {
    # OMP: idle OpenMP threads of torch would spin and keep the CPU from the other runner's threads.
    # Tokenizers: a batch is tokenised on the core that then computes it. A variable of the
    # environment wins over these.
    "envs": [
        {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"},
        {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
    ],
    "workers": 1,
    "logging": {"access": {"enabled": False}},
}


_answers: dict[Version, Answers] = {}


def answers(version: Version) -> Answers:
    """What answers for the runner of this process."""
    return _answers[version]


class SentimentRunner:
    """The runner of one model version; each subclass is a service of its own."""

    version: ClassVar[Version]

    def __init__(self) -> None:
        # The model is loaded here because startup hooks of an in-process dependency never run.
        # Imported here because only a runner's process needs it; the others only look up services.
        from runners.slot import slot_of

        settings = settings_for_serving()
        if settings.is_traced:
            start_tracing(
                f"{settings.otel_service_name}-runner-{self.version}", settings.traces_endpoint
            )
        slot = self._slot = slot_of(self.version, settings)
        _answers[self.version] = answers_of(
            self, lambda: slot.batcher, lambda: slot.description.has_model
        )
        start_runner_series(self.version)
        heartbeat.watch_compute(self._slot.progress)
        collect_and_return()
        freeze_gc()

    @bentoml.on_startup
    async def start(self) -> None:
        heartbeat.watch_loop(asyncio.get_running_loop())
        self._slot.start()

    @bentoml.api(route=wire.CLASSIFY_PATH)
    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Classify `texts`; the i-th `Classification` belongs to the i-th text."""
        return await self._slot.batcher.classify(
            texts, timeout_seconds=timeout_seconds, lane=lane, long_text=long_text
        )

    @bentoml.api(route=wire.DESCRIBE_PATH)
    async def describe(self) -> RunnerDescription:
        """The `RunnerDescription` of the model that is loaded."""
        return self._slot.description

    @bentoml.api(route=wire.LOAD_PATH)
    async def load(self, desired: DesiredModel) -> RunnerDescription:
        """Begin to load another model, unless this generation was requested before."""
        self._slot.request_load(desired)
        return self._slot.description

    @bentoml.on_shutdown
    def close(self) -> None:
        self._slot.close()
        stop_tracing()


@bentoml.service(name="sentiment_runner_v1", **CONFIG)  # type: ignore[operator]
class RunnerV1(SentimentRunner):
    version = "v1"


@bentoml.service(name="sentiment_runner_v2", **CONFIG)  # type: ignore[operator]
class RunnerV2(SentimentRunner):
    version = "v2"


def check_models(services: Collection[str], settings: Settings) -> None:
    """Check that each runner among `services` has a model.

    A runner without a model would fail and be restarted for ever.

    Raises:
        SystemExit: a runner has none; the message says how to save one.
    """
    # BentoML's decorator made services of the classes, which its types do not show.
    runners: Sequence[Any] = (RunnerV1, RunnerV2)
    for runner in runners:
        if runner.name not in services:
            continue
        version: Version = runner.inner.version
        configured = settings.model_tag(version)
        choice = chosen_model(version, settings).read()
        if choice is not None and any(_is_saved(tag) for tag in choice.tags(configured)):
            continue
        try:
            find_model(configured)
        except NotFound as error:
            raise SystemExit(f"{version}: {error}") from error


def _is_saved(tag: str) -> bool:
    try:
        find_model(tag)
    except NotFound:
        return False
    return True
