"""The prediction pipeline: look up, compute the misses by the runner, store, record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from msgspec.structs import replace

from cache.keys import CacheKeys
from cache.single_flight import SingleFlight
from core import metrics, request_context, tracing
from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.keyed_hash import COMPARISON_SALT, subject_digest
from core.request_context import is_trial
from core.types import (
    VERSIONS,
    Assignment,
    Classification,
    Comparison,
    Endpoint,
    Experiment,
    LongText,
    ModelVersion,
    Prediction,
    RunnerDescription,
    Sentiment,
    Version,
)
from core.uuid7 import new_id
from rollout.bucketing import (
    Bucket,
    arm_group,
    assign_subject,
    assign_text,
    is_shadowed,
    new_subject_key,
    text_group,
)
from rollout.policy import RolloutPolicy, other
from runners.admission import RecentCallers
from runners.client import OnPiece
from runners.lanes import Lane
from serving.long_texts import flight_of, is_complete, key_of_flight, refuse_long


class Runner(Protocol):
    def description(self) -> RunnerDescription: ...

    async def wait_until_described(self) -> RunnerDescription: ...

    def admit(self, texts: Sequence[str], long_text: LongText) -> AbstractContextManager[None]: ...

    def lane(self, texts: Sequence[str], long_text: LongText) -> Lane: ...

    async def classify(
        self, texts: Sequence[str], long_text: LongText, *, on_piece: OnPiece | None
    ) -> list[Classification]: ...


class Cache(Protocol):
    async def lookup(
        self, keys: Sequence[str], sentiments: Collection[Sentiment]
    ) -> list[Classification | None]: ...

    def store(self, classifications: Mapping[str, Classification]) -> None: ...


class Log(Protocol):
    def check(self) -> None: ...

    async def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None: ...

    def record_failure(
        self, model: ModelVersion, endpoint: Endpoint, texts: int, arm_group: int | None = None
    ) -> None: ...


# How long a stop waits for predictions whose clients have left.
STOP_SECONDS = 2.0


class PredictionPipeline:
    """Answers texts; every endpoint is this pipeline with other arguments.

    Everything is recorded but trials of the playground.
    """

    def __init__(
        self,
        runners: Mapping[Version, Runner],
        cache: Cache,
        log: Log,
        *,
        cache_keys: CacheKeys,
        recent: RecentCallers,
        policy: Callable[[], RolloutPolicy],
        shadow: Callable[[Prediction], None],
        sample: Callable[[Sequence[Prediction]], None],
        long_text: LongText = "truncate",
    ) -> None:
        """`policy` gives the current policy; `shadow` queues a prediction for the challenger.

        `recent` gets whoever asks, also for cached texts: runners divide their lanes by it.

        `sample` gets what is recorded, but for shadows: it looks at some of the texts.
        `long_text` is that of requests that name none.
        """
        self._long_text: LongText = long_text
        self._runners = runners
        self._cache = cache
        self._cache_keys = cache_keys
        self._recent = recent
        self._log = log
        self._policy = policy
        self._shadow = shadow
        self._sample = sample
        self._assigned: set[asyncio.Task[Prediction]] = set()
        self._single_flight = SingleFlight[Classification](on_join=metrics.cache_joins.inc)

    async def predict(
        self,
        texts: Sequence[str],
        version: Version | None,
        endpoint: Endpoint,
        long_text: LongText | None = None,
    ) -> list[Prediction]:
        """Predict `texts`, at least one, with `version`; in order, recorded.

        Without a version the champion answers; on /predict the version that the policy assigns.

        Raises:
            RunnerUnavailable: the runner of `version` cannot answer. Nothing is recorded.
            LogUnavailable: the prediction cannot be recorded.
            TextTooLong: a text is too long, and `long_text` is `refuse`. Nothing is recorded.
        """
        started = time.perf_counter()
        policy = self._policy()
        is_single = endpoint == "/predict"
        group = None
        if version is None:
            assigned = None
            if is_single:
                group = text_group(policy, texts[0])
                assigned = assign_text(policy, texts[0], is_trial=is_trial())
            version = _version_of_first_try(assigned or policy.champion)
        predictions = await self._predict(texts, version, endpoint, started, long_text, group=group)
        await _keep_version_of_first_try()
        await self._record(predictions)
        is_shown = is_single and version == policy.champion and not is_trial()
        if is_shown and is_shadowed(policy, texts[0]):
            self._shadow(predictions[0])
        return predictions

    async def predict_ab(
        self, text: str, subject: str | None, long_text: LongText | None = None
    ) -> Prediction:
        """Predict `text` with the version assigned to `subject`; recorded with its test.

        A subject of a test is answered and recorded, although its client may leave or its deadline
        pass meanwhile. A test without those that one version took too long for would be about
        others than were assigned, and a client could choose them by its deadlines.

        Raises:
            RunnerUnavailable: the runner of that version cannot answer. Nothing is recorded.
            LogUnavailable: the prediction cannot be recorded.
            TextTooLong: the text is too long, and `long_text` is `refuse`. Nothing is recorded.
        """
        started = time.perf_counter()
        bucket = assign_subject(self._policy(), subject, _new_subject_key, is_trial=is_trial())
        bucket = bucket._replace(version=_version_of_first_try(bucket.version))
        if bucket.split is None or is_trial():
            return await self._predict_bucket(text, bucket, started, long_text)
        # It may be recorded later than its client has given up, and asked again.
        await _keep_version_of_first_try()
        answering = asyncio.create_task(self._predict_to_the_end(text, bucket, started, long_text))
        self._assigned.add(answering)
        answering.add_done_callback(self._forget)
        return await asyncio.shield(answering)

    async def _predict_to_the_end(
        self, text: str, bucket: Bucket, started: float, long_text: LongText | None
    ) -> Prediction:
        """For a task of its own, whose context is a copy of the request's."""
        request_context.forget_deadline()
        return await self._predict_bucket(text, bucket, started, long_text)

    async def _predict_bucket(
        self, text: str, bucket: Bucket, started: float, long_text: LongText | None
    ) -> Prediction:
        group = None if bucket.split is None else arm_group(bucket.subject_key)
        [prediction] = await self._predict(
            [text], bucket.version, "/predict/ab", started, long_text, group=group
        )
        prediction = replace(prediction, assignment=self._assignment(prediction, bucket))
        if bucket.split is None:
            await _keep_version_of_first_try()
        await self._record([prediction])
        return prediction

    def _forget(self, answering: asyncio.Task[Prediction]) -> None:
        self._assigned.discard(answering)
        if not answering.cancelled():
            answering.exception()  # who has left does not want to know it

    async def stop(self, wait_seconds: float = STOP_SECONDS) -> None:
        """Wait for the predictions of clients that have left, and then give them up."""
        if self._assigned:
            _, late = await asyncio.wait(self._assigned, timeout=wait_seconds)
            for answering in late:
                answering.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _assignment(self, prediction: Prediction, bucket: Bucket) -> Assignment | None:
        """The A/B test of a prediction; None while the other version has never been up."""
        if bucket.split is None:
            return None
        models = {prediction.version: prediction.model}
        for version in VERSIONS:
            if version not in models:
                try:
                    held = self._runners[version].description()
                except RunnerUnavailable:
                    return None
                models[version] = ModelVersion(version, held.revision, held.engine)
        experiment = Experiment(bucket.split, models["v1"], models["v2"])
        return Assignment(experiment, bucket.subject_key)

    async def compare(
        self, text: str, subject: str | None = None, long_text: LongText | None = None
    ) -> Comparison:
        """Predict `text` with both versions at once; recorded as two linked predictions.

        `subject` is whose text it is: of one subject, one labelled text counts in a verdict.

        Raises:
            RunnerUnavailable: either runner cannot answer. Nothing is recorded.
            LogUnavailable: the predictions cannot be recorded.
        """
        started = time.perf_counter()
        [v1], [v2] = await asyncio.gather(
            *(
                self._predict([text], version, "/predict/ab-compare", started, long_text)
                for version in VERSIONS
            )
        )
        if subject is not None:
            key = subject_digest(subject, COMPARISON_SALT)
            v1, v2 = (replace(prediction, subject_key=key) for prediction in (v1, v2))
        return await self._compare(v1, v2, self._record)

    async def shadow(self, prediction: Prediction) -> None:
        """Predict an answered text by the other version too; recorded as a comparison.

        Raises:
            RunnerUnavailable: its runner cannot answer. Only the failure is recorded.
            LogUnavailable: the comparison cannot be recorded.
        """
        version = other(prediction.version)
        started = time.perf_counter()
        # Where the client named the version, neither is in an arm: they are other texts.
        [shadowed] = await self._predict(
            [prediction.text],
            version,
            "shadow",
            started,
            prediction.long_text,
            group=prediction.arm_group,
        )
        v1, v2 = (shadowed, prediction) if version == "v1" else (prediction, shadowed)
        # The log has the first prediction already, and does not store it again.
        await self._compare(v1, v2, self._log.record)

    async def _predict(
        self,
        texts: Sequence[str],
        version: Version,
        endpoint: Endpoint,
        started: float,
        long_text: LongText | None,
        *,
        group: int | None = None,
    ) -> list[Prediction]:
        """`group` is that of a text or subject whose version the policy chose."""
        long_text = long_text or self._long_text
        if endpoint != "shadow" and (request := request_context.current()) is not None:
            self._recent.ask(request.caller, time.monotonic())
        self._log.check()  # before anything is computed
        description = await self._runners[version].wait_until_described()
        keys = [
            self._cache_keys.key(version, description.revision, text, long_text) for text in texts
        ]
        with tracing.span("cache.lookup", {"texts": len(keys)}):
            found_values = await self._cache.lookup(keys, description.labels)
            cached = dict(zip(keys, found_values, strict=True))
        # A cached answer to a part of the text does not tell how long the text is.
        hits = {
            key: found
            for key, found in cached.items()
            if found is not None and not (long_text == "refuse" and found.truncated)
        }
        text_of_miss = {key: text for key, text in zip(keys, texts, strict=True) if key not in hits}

        async def compute(missing: Sequence[str]) -> Mapping[str, Classification]:
            # Others may wait for it too. Once nobody does, it is cancelled.
            request_context.forget_deadline()
            text_of_key = {key: text_of_miss[key_of_flight(key)] for key in missing}
            return await self._compute(version, text_of_key, long_text)

        try:
            flights = {flight_of(key, long_text): text for key, text in text_of_miss.items()}
            misses = list(text_of_miss.values())
            is_large = self._runners[version].lane(misses, long_text) == "bulk"
            joins = partial(self._single_flight.joins, is_large=is_large)
            new = [text for flight, text in flights.items() if not joins(flight)]
            # Before anything is begun: a refusal this early costs half of one further in.
            with self._runners[version].admit(new, long_text) if new else nullcontext():
                computed = await self._single_flight.get(list(flights), compute, is_large=is_large)
        except Exception as error:
            # No model failed where a shadow gave way to others, where a client had little time, or
            # where too many requests of one caller waited.
            gave_way = isinstance(error, Overloaded) and (endpoint == "shadow" or error.of_caller)
            if not gave_way and not isinstance(error, DeadlineExceeded) and not is_trial():
                model = ModelVersion(version, description.revision, description.engine)
                self._log.record_failure(model, endpoint, len(texts), group)
            raise
        answers = hits | {key_of_flight(flight): answer for flight, answer in computed.items()}
        if long_text == "refuse":
            refuse_long([answers[key] for key in keys], description.max_tokens)
        latency_ms = (time.perf_counter() - started) * 1_000
        # Another try of the request may be assigned another version; it is counted once even then.
        name = version if endpoint == "/predict/ab-compare" else "texts"
        created_at, ids = _new_ids(name, len(texts))
        return [
            Prediction(
                id=id_,
                created_at=created_at,
                endpoint=endpoint,
                model=ModelVersion(version, answer.revision, answer.engine),
                sentiment=answer.sentiment,
                confidence=answer.confidence,
                scores=answer.scores,
                latency_ms=latency_ms,
                cache_hit=key in hits,
                truncated=answer.truncated,
                token_count=answer.token_count,
                text_characters=len(text),
                text=text,
                windows=answer.windows,
                long_text=long_text,
                arm_group=group,
            )
            for id_, key, text, answer in zip(
                ids, keys, texts, (answers[key] for key in keys), strict=True
            )
        ]

    async def _compute(
        self, version: Version, text_of_key: Mapping[str, str], long_text: LongText
    ) -> Mapping[str, Classification]:
        """Ask the runner; cache each answer, and pass it to others who wait for it, as it comes."""
        flights, texts = list(text_of_key), list(text_of_key.values())

        def keep(first: int, classifications: Sequence[Classification]) -> None:
            # Stored under the revision that answered: a reload may have changed it since the
            # lookup.
            self._cache.store(
                {
                    self._cache_keys.key(version, classification.revision, text, long_text): (
                        classification
                    )
                    for text, classification in zip(texts[first:], classifications, strict=False)
                    if is_complete(classification, long_text)
                }
            )
            self._single_flight.found(dict(zip(flights[first:], classifications, strict=False)))

        answers = await self._runners[version].classify(texts, long_text, on_piece=keep)
        return dict(zip(flights, answers, strict=True))

    async def _compare(
        self,
        v1: Prediction,
        v2: Prediction,
        record: Callable[[list[Prediction], Comparison], Awaitable[None]],
    ) -> Comparison:
        created_at, [id_] = _new_ids("comparison", 1)
        comparison = Comparison(id_, created_at, v1, v2)
        await record([v1, v2], comparison)
        if is_trial():
            return comparison
        metrics.comparisons.labels("agree" if comparison.agreement else "disagree").inc()
        return comparison

    async def _record(
        self, predictions: list[Prediction], comparison: Comparison | None = None
    ) -> None:
        if is_trial():
            return
        with tracing.span("log.record", {"predictions": len(predictions)}):
            await self._log.record(predictions, comparison)
        for prediction in predictions:
            metrics.predictions.labels(prediction.sentiment, prediction.version).inc()
            metrics.confidence.labels(prediction.version).observe(prediction.confidence)
        self._sample(predictions)


def _new_ids(name: str, count: int) -> tuple[datetime, list[UUID]]:
    """The time and the ids of predictions or a comparison; the log keeps their order too.

    `name` says which part of the current request they are of.
    """
    request = request_context.current()
    if request is None or request.repeatable is None:
        now = datetime.now(UTC)
        return now, sorted(new_id(now) for _ in range(count))
    return request.repeatable.at, request.repeatable.ids(name, count)


def _version_of_first_try(assigned: Version) -> Version:
    """The version of an earlier try, with which the log may have the request; else `assigned`.

    The rollout may have changed in between, and the answer would not be the one that is logged.
    No trial is.
    """
    request = request_context.current()
    if request is None or request.repeatable is None or request.is_trial:
        return assigned
    request.repeatable = request.repeatable.assigned(assigned)
    return request.repeatable.version or assigned


async def _keep_version_of_first_try() -> None:
    """Note the version that answers a request that may be repeated, before the log may have it."""
    request = request_context.current()
    if request is None or request.repeatable is None or request.is_trial:
        return
    repeatable = request.repeatable
    if repeatable.version is not None and repeatable.keep_version is not None:
        await repeatable.keep_version(repeatable.version)


def _new_subject_key() -> bytes:
    """The key of a request without a subject; every try of one has the same."""
    request = request_context.current()
    if request is None or request.repeatable is None:
        return new_subject_key()
    return request.repeatable.secret("subject")
