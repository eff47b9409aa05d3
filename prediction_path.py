"""The one prediction path: look up, classify the misses through the runner, store, record."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import metrics
from cache.keys import cache_key
from cache.single_flight import SingleFlight
from ids import new_id
from values import (
    VERSIONS,
    Classification,
    Comparison,
    Endpoint,
    Prediction,
    RunnerDescription,
    Version,
)

_BUCKETS = 10_000


class Runner(Protocol):
    def description(self) -> RunnerDescription: ...

    async def classify(self, texts: Sequence[str]) -> list[Classification]: ...


class Cache(Protocol):
    async def lookup(self, keys: Sequence[str]) -> list[Classification | None]: ...

    async def store(self, classifications: Mapping[str, Classification]) -> None: ...


class Log(Protocol):
    def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None: ...


class PredictionPath:
    """Answers texts; every endpoint is this path with other arguments."""

    def __init__(self, runners: Mapping[Version, Runner], cache: Cache, log: Log) -> None:
        self._runners = runners
        self._cache = cache
        self._log = log
        self._single_flight = SingleFlight[Classification](on_join=metrics.cache_joins.inc)

    async def predict(
        self, texts: Sequence[str], version: Version, endpoint: Endpoint
    ) -> list[Prediction]:
        """Predict `texts`, at least one, with `version`; in order, recorded.

        Raises:
            RunnerUnavailable: the runner of `version` cannot answer. Nothing is recorded.
        """
        predictions = await self._predict(texts, version, endpoint, time.perf_counter())
        self._record(predictions)
        return predictions

    async def compare(self, text: str) -> Comparison:
        """Predict `text` with both versions at once; recorded as two linked predictions.

        Raises:
            RunnerUnavailable: either runner cannot answer. Nothing is recorded.
        """
        started = time.perf_counter()
        [v1], [v2] = await asyncio.gather(
            *(
                self._predict([text], version, "/predict/ab-compare", started)
                for version in VERSIONS
            )
        )
        created_at = datetime.now(UTC)
        comparison = Comparison(new_id(created_at), created_at, v1, v2)
        self._record([v1, v2], comparison)
        return comparison

    async def _predict(
        self, texts: Sequence[str], version: Version, endpoint: Endpoint, started: float
    ) -> list[Prediction]:
        description = self._runners[version].description()
        keys = [cache_key(version, description.revision, text) for text in texts]
        cached = dict(zip(keys, await self._cache.lookup(keys), strict=True))
        hits = {key: found for key, found in cached.items() if found is not None}
        text_of_miss = {key: text for key, text in zip(keys, texts, strict=True) if key not in hits}

        async def classify(missing: Sequence[str]) -> Mapping[str, Classification]:
            return await self._classify(version, {key: text_of_miss[key] for key in missing})

        answers = hits | await self._single_flight.get(list(text_of_miss), classify)
        created_at = datetime.now(UTC)
        latency_ms = (time.perf_counter() - started) * 1_000
        return [
            Prediction(
                id=new_id(created_at),
                created_at=created_at,
                endpoint=endpoint,
                version=version,
                engine=description.engine,
                text=text,
                classification=answers[key],
                cache_hit=key in hits,
                latency_ms=latency_ms,
            )
            for key, text in zip(keys, texts, strict=True)
        ]

    async def _classify(
        self, version: Version, text_of_key: Mapping[str, str]
    ) -> Mapping[str, Classification]:
        classifications = await self._runners[version].classify(list(text_of_key.values()))
        # Stored under the revision that answered, which a reload may have changed since the lookup.
        await self._cache.store(
            {
                cache_key(version, classification.revision, text): classification
                for text, classification in zip(text_of_key.values(), classifications, strict=True)
            }
        )
        return dict(zip(text_of_key, classifications, strict=True))

    def _record(self, predictions: list[Prediction], comparison: Comparison | None = None) -> None:
        self._log.record(predictions, comparison)
        for prediction in predictions:
            classification = prediction.classification
            metrics.predictions.labels(classification.sentiment, prediction.version).inc()
            metrics.confidence.labels(prediction.version).observe(classification.confidence)


def assign_version(subject: str | None, *, v2_percent: float, salt: str) -> Version:
    """Deal a subject out to a version: the same one as long as salt and split stay.

    A subject's bucket is a hash, so a changed split moves only the buckets between the two marks.
    Without a subject the bucket is drawn at random.
    """
    if subject is None:
        bucket = random.randrange(_BUCKETS)
    else:
        digest = hashlib.sha256(f"{salt}\x00{subject}".encode()).digest()
        bucket = int.from_bytes(digest[:8]) % _BUCKETS
    return "v2" if bucket < v2_percent * _BUCKETS / 100 else "v1"
