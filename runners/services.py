"""The runner services: one process per model version, batched adaptively by BentoML."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import bentoml

import metrics
from runners.classifier import Classifier
from runners.engines import TorchEngine
from runners.model_store import find_model
from settings import get_settings
from values import Classification, RunnerDescription, Version

logger = logging.getLogger("bentoml.sentiment.runner")
_settings = get_settings()

# BentoML's client of a runner closes its session every 100 requests and every 300 s by default and
# cuts the calls in flight: one request in ten failed with 32 clients. So: practically never.
_NEVER = {"max_requests": 10**12, "max_age": 1e9}
CONFIG: dict[str, Any] = {
    # Idle OpenMP threads spin by default, and those of one runner then keep the other's from the
    # CPU: with two runners on two cores the warm-up took twice as long. The environment wins.
    "envs": [{"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}],
    "workers": 1,
    "runner_connection": _NEVER,
    # Above every deadline of ours: a framework time-out would answer in the framework's own shape.
    "traffic": {"timeout": _settings.request_timeout_seconds * 2},
    "logging": {"access": {"enabled": False}},
}


class SentimentRunner:
    """Holds one model version; subclasses say which."""

    version: ClassVar[Version]

    def __init__(self) -> None:
        # Loaded here and not in a startup hook: an in-process dependency's hooks never run.
        started = time.perf_counter()
        model = find_model(_settings.model_tag(self.version))
        threads = _settings.runner_threads or len(os.sched_getaffinity(0))
        engine = TorchEngine(model.folder, threads=threads, mkldnn=_settings.mkldnn_enable)
        self._classifier = Classifier(model, engine)
        self._classifier.warm_up()
        self._description = RunnerDescription(
            self.version, model.revision, engine.name, model.labels
        )
        # One thread: the engine computes one batch at a time, on threads of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"inference-{self.version}")
        seconds = time.perf_counter() - started
        logger.info(
            "%s: %s on %s, warm after %.1f s", self.version, model.tag, engine.name, seconds
        )

    @bentoml.api(
        batchable=True,
        max_batch_size=_settings.runner_max_batch_size,
        max_latency_ms=_settings.runner_max_latency_ms,
    )
    async def classify(self, texts: list[str]) -> list[Classification]:
        """Classify a batch; the i-th `Classification` belongs to the i-th text."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._classify, list(texts))

    @bentoml.api
    async def describe(self) -> RunnerDescription:
        """The `RunnerDescription` of what is loaded."""
        return self._description

    def _classify(self, texts: list[str]) -> list[Classification]:
        metrics.batch_texts.labels(self.version).observe(len(texts))
        with metrics.inference_duration.labels(self.version).time():
            return self._classifier.classify(texts)


@bentoml.service(name="sentiment_runner_v1", **CONFIG)  # type: ignore[operator]
class RunnerV1(SentimentRunner):
    version = "v1"


@bentoml.service(name="sentiment_runner_v2", **CONFIG)  # type: ignore[operator]
class RunnerV2(SentimentRunner):
    version = "v2"
