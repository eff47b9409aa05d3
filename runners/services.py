"""The runner services: one process per model version, with adaptive batching."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import bentoml
from bentoml.exceptions import NotFound

from core.gc import freeze_gc
from core.settings import Settings, get_settings
from core.tracing import start_tracing, stop_tracing
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners.chosen_model import chosen_model
from runners.endpoints import Answer, answers_of
from runners.lanes import Lane
from runners.model_store import find_model

_settings = get_settings()

CLASSIFY_ROUTE = "/classify"

CONFIG: dict[str, Any] = {
    # OMP: idle OpenMP threads of torch would spin, and keep the other runner's from the CPU.
    # Tokenizers: a batch is tokenised on the core that then computes it. The environment wins.
    "envs": [
        {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"},
        {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
    ],
    "workers": 1,
    "logging": {"access": {"enabled": False}},
}


_answers: dict[Version, dict[str, Answer]] = {}


def answers(version: Version) -> dict[str, Answer]:
    """What the runner of this process answers to the API, by route."""
    return _answers[version]


class SentimentRunner:
    """Holds one model version; subclasses say which."""

    version: ClassVar[Version]

    def __init__(self) -> None:
        # Loaded here and not in a startup hook: an in-process dependency's hooks never run.
        # Imported here because the API's process needs none of it, nor the others that only look
        # at what services there are.
        from runners.slot import slot_of

        if _settings.is_traced:
            start_tracing(f"{_settings.otel_service_name}-runner-{self.version}")
        self._slot = slot_of(self.version, _settings)
        _answers[self.version] = answers_of(self)
        freeze_gc()

    @bentoml.api(route=CLASSIFY_ROUTE)
    async def classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        """Classify `texts`; the i-th `Classification` belongs to the i-th text."""
        return await self._slot.classify(texts, timeout_seconds=timeout_seconds, lane=lane)

    @bentoml.api
    async def describe(self) -> RunnerDescription:
        """The `RunnerDescription` of what is loaded."""
        return self._slot.description

    @bentoml.api
    async def load(self, tag: str | None, generation: int) -> RunnerDescription:
        """Begin to load another model, unless this generation was requested before."""
        self._slot.ask(DesiredModel(tag, generation))
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
    """Whether each runner among `services` has a model to start with; else it would start for ever.

    Raises:
        SystemExit: it has none; the message says how to save one.
    """
    # BentoML's decorator has made services of the classes, which its types do not tell.
    runners: Sequence[Any] = (RunnerV1, RunnerV2)
    for runner in runners:
        if runner.name not in services:
            continue
        version: Version = runner.inner.version
        try:
            find_model(settings.model_tag(version))
        except NotFound as error:
            chosen = chosen_model(version, settings).read()
            # A chosen one that is gone too is a matter of the runner: it says so and falls back.
            if chosen is None or chosen.tag is None:
                raise SystemExit(f"{version}: {error}") from error
