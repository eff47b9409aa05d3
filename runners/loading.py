"""Loads a saved model on its fastest engine, warm and checked."""

from __future__ import annotations

import logging
import time

from core.settings import Settings
from core.types import RunnerDescription, Version
from runners import golden_set
from runners.batching import TokenBatcher
from runners.classifier import Classifier
from runners.cpu import at_low_priority, usable_cpus
from runners.engines.choice import choose_engine
from runners.engines.fastest import known_speeds
from runners.integrity import ModelDamaged, differences
from runners.model_store import find_model
from runners.queue import TextQueue

logger = logging.getLogger("bentoml.sentiment.runner")

# A warm model, and the batcher with the threads that compute it.
Loaded = tuple[RunnerDescription, TokenBatcher]


class GoldenCheckFailed(RuntimeError):
    """A model does not answer its golden set as it did when it was saved; says how."""


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
            model,
            settings.engine,
            streams=streams,
            mkldnn=settings.mkldnn_enable,
            speeds=known_speeds(model, settings.data_folder),
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
