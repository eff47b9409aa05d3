"""The scoring of texts with one or both versions, on a thread for each core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from tokenizers import Encoding

from core.settings import Settings
from core.types import Classification, LongText, Version
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import choose_engine
from runners.engines.fastest import saved_speeds
from runners.model_store import find_model
from runners.packing import pack
from runners.windows import Windows, windows_of


class Model(Protocol):
    """A classifier; one thread for each stream calls `compute`."""

    def encode(self, texts: Sequence[str]) -> list[Encoding]: ...

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]: ...

    def refuse(self, token_count: int) -> Classification: ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and its identity: other weights or another engine give other scores."""

    model: Model
    identity: str


Batch = tuple[list[int], Future[list[Classification]]]


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Texts that are being computed: the windows of all are the rows of the batches."""

    model: Model
    windows: Sequence[Windows]
    batches: Sequence[Batch]

    def wait(self) -> list[Classification]:
        """The results, in the order of the texts; a refused text has one without windows."""
        rows = iter(_in_order(self.batches))
        return [
            text.join(list(islice(rows, len(text.encodings))))
            if text.encodings
            else self.model.refuse(text.token_count)
            for text in self.windows
        ]


class Scorer(AbstractContextManager["Scorer"]):
    """Computes batches of texts; the next chunk begins before the previous one has ended.

    An engine computes a batch on one core. Each of the `streams` threads takes the next batch of
    either version, so no thread waits for the others at the end of a chunk.
    """

    def __init__(
        self,
        models: Mapping[Version, LoadedModel],
        *,
        streams: int,
        long_text: LongText = "truncate",
    ) -> None:
        self._long_text: LongText = long_text
        self._models = {version: loaded.model for version, loaded in models.items()}
        self.identities: Mapping[Version, str] = {
            version: loaded.identity for version, loaded in models.items()
        }
        self._threads = ThreadPoolExecutor(streams, thread_name_prefix="score")
        # Enough batches for all threads while the first chunk is written.
        self.chunks_ahead = 2 + streams // 16

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def score(self, texts: Sequence[str]) -> dict[Version, list[Classification]]:
        """Score `texts` with each version; the results have the order of the texts."""
        return self.begin(texts)()

    def begin(self, texts: Sequence[str]) -> Callable[[], dict[Version, list[Classification]]]:
        """Queue `texts` for the threads; the result waits for their scores."""
        submitted = {v: self._submit(model, texts) for v, model in self._models.items()}
        return lambda: {version: submitted[version].wait() for version in submitted}

    def _submit(self, model: Model, texts: Sequence[str]) -> _Submitted:
        encoded = model.encode(texts) if texts else []
        windows = [windows_of(encoding, self._long_text) for encoding in encoded]
        encodings = [encoding for text in windows for encoding in text.encodings]
        batches = [
            (rows, self._threads.submit(model.compute, [encodings[row] for row in rows]))
            for rows in pack([len(encoding.ids) for encoding in encodings])
        ]
        return _Submitted(model, windows, batches)


def _in_order(batches: Sequence[Batch]) -> list[Classification]:
    results: dict[int, Classification] = {}
    for rows, future in batches:
        results.update(zip(rows, future.result(), strict=True))
    return [results[row] for row in range(len(results))]


def streams_of(settings: Settings) -> int:
    """The number of threads: RUNNER_THREADS, or the usable CPUs."""
    return settings.runner_threads or usable_cpus()


def load_models(versions: Sequence[Version], settings: Settings) -> dict[Version, LoadedModel]:
    """Load the models that `settings` name, each on its fastest engine.

    Raises:
        bentoml.exceptions.NotFound: a model is not in the model store.
        EngineUnavailable: none of its engines can be loaded.
    """
    return {version: load_model(settings.model_tag(version), settings) for version in versions}


def load_model(tag: str, settings: Settings) -> LoadedModel:
    """Load one model of the store, as `load_models` does."""
    saved = find_model(tag)
    engine = choose_engine(
        saved,
        settings.engine,
        streams=streams_of(settings),
        mkldnn=settings.mkldnn_enable,
        # Not what a runner may measure meanwhile: an interrupted run goes on with its engine.
        speeds=saved_speeds(saved),
    )
    classifier = Classifier(saved, engine)
    classifier.warm_up()
    return LoadedModel(classifier, f"{saved.revision} on {engine.name}")
