"""Small stand-ins for what the prediction path and its log talk to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from prometheus_client import REGISTRY

from analytics.log.records import ComparisonRecord
from cache.keys import CacheKeys
from core.errors import DeadlineExceeded, LogUnavailable, Overloaded, RunnerUnavailable
from core.request_context import remaining_seconds
from core.types import (
    ARM_GROUPS,
    Classification,
    Comparison,
    Endpoint,
    Failure,
    LongText,
    ModelVersion,
    Prediction,
    RunnerDescription,
    Sentiment,
    Version,
)
from core.uuid7 import new_id
from rollout.policy import RolloutPolicy
from runners.admission import RecentCallers
from runners.client import OnPiece
from runners.lanes import Lane, estimated_tokens, lane_of
from serving.pipeline import PredictionPipeline


def classification(text: str, revision: str = "r1") -> Classification:
    """A classification that depends on the text alone."""
    positive = (len(text) % 9 + 1) / 10
    return Classification(
        revision,
        "openvino-bf16",
        {"negative": 1 - positive, "positive": positive},
        len(text.split()),
        truncated=False,
    )


def runner_description(
    version: Version = "v1", revision: str = "r", engine: str = "openvino-bf16", **changes: Any
) -> RunnerDescription:
    """The description of a runner that has just started, with `changes`."""
    started = RunnerDescription(
        version, revision, engine, ("negative", "positive"), None, hosts=1, tag="",
        observed_generation=0, loading=None, load_error=None, converged=True,
    )  # fmt: skip
    return replace(started, **changes)


class FakeRunner:
    """Answers with `classification`; remembers its calls; fails or waits when told to."""

    def __init__(self, version: Version = "v1", revision: str = "r1") -> None:
        self.calls: list[list[str]] = []
        self.modes: list[LongText] = []
        self.seconds_left: list[float] = []
        self.answers: dict[str, Classification] = {}
        self.fails = False
        self.first_piece = 0  # so many answers come before it waits or fails
        self.starting = False
        self.overloaded = False
        self.has_too_many_of_caller = False
        self.too_slow = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.answers_as = revision
        self._description = runner_description(version, revision)

    def description(self) -> RunnerDescription:
        if self.starting:
            raise RunnerUnavailable("told to be still loading")
        return self._description

    async def wait_until_described(self) -> RunnerDescription:
        return self.description()

    @contextmanager
    def admit(self, texts: Sequence[str], long_text: LongText) -> Iterator[None]:
        assert texts
        assert long_text in {"truncate", "windows", "refuse"}
        if self.overloaded:
            raise Overloaded("told to be overloaded")
        if self.has_too_many_of_caller:
            raise Overloaded("told that too many are the caller's", of_caller=True)
        if self.too_slow:
            raise DeadlineExceeded("told to be too slow")
        yield

    def lane(self, texts: Sequence[str], long_text: LongText) -> Lane:
        return lane_of(estimated_tokens(texts, long_text=long_text))

    async def classify(
        self, texts: Sequence[str], long_text: LongText, *, on_piece: OnPiece | None = None
    ) -> list[Classification]:
        self.calls.append(list(texts))
        self.modes.append(long_text)
        self.seconds_left.append(remaining_seconds())
        self.entered.set()
        answers = [self.answers.get(text, classification(text, self.answers_as)) for text in texts]
        if on_piece is not None and self.first_piece:
            on_piece(0, answers[: self.first_piece])
        await self.gate.wait()
        if self.fails:
            raise RunnerUnavailable("told to fail")
        if on_piece is not None:
            on_piece(self.first_piece, answers[self.first_piece :])
        return answers


class FakeCache:
    """A dictionary that counts its round trips."""

    def __init__(self) -> None:
        self.content: dict[str, Classification] = {}
        self.lookups: list[list[str]] = []
        self.stores: list[list[str]] = []

    async def lookup(
        self, keys: Sequence[str], _sentiments: Collection[Sentiment]
    ) -> list[Classification | None]:
        self.lookups.append(list(keys))
        return [self.content.get(key) for key in keys]

    def store(self, classifications: Mapping[str, Classification]) -> None:
        self.stores.append(list(classifications))
        self.content.update(classifications)


class FakeLog:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.comparisons: list[Comparison] = []
        self.failures: list[tuple[ModelVersion, Endpoint, int]] = []
        self.full = False
        self.refuses = False  # finds out only when it writes

    def record_failure(
        self, model: ModelVersion, endpoint: Endpoint, texts: int, arm_group: int | None = None
    ) -> None:
        assert arm_group is None or 0 <= arm_group < ARM_GROUPS
        self.failures.append((model, endpoint, texts))

    def check(self) -> None:
        if self.full:
            raise LogUnavailable("told to be full")

    async def record(
        self, predictions: Sequence[Prediction], comparison: Comparison | None = None
    ) -> None:
        if self.refuses:
            raise LogUnavailable("told to refuse")
        self.predictions.extend(predictions)
        if comparison is not None:
            self.comparisons.append(comparison)


class Setup:
    """A path with fakes around it."""

    def __init__(self) -> None:
        self.v1, self.v2 = FakeRunner("v1"), FakeRunner("v2", "r2")
        self.cache, self.cache_keys, self.log = FakeCache(), CacheKeys(), FakeLog()
        self.recent = RecentCallers()
        self.policy = RolloutPolicy(salt="salt")
        self.shadowed: list[Prediction] = []
        self.sampled: list[Prediction] = []
        self.path = PredictionPipeline(
            {"v1": self.v1, "v2": self.v2},
            self.cache,
            self.log,
            cache_keys=self.cache_keys,
            recent=self.recent,
            policy=lambda: self.policy,
            shadow=self.shadowed.append,
            sample=self.sampled.extend,
        )


class FakeWriter:
    """Takes what it is given, unless it is told to fail or to refuse."""

    def __init__(self) -> None:
        self.taken: list[Prediction] = []
        self.comparisons: list[ComparisonRecord] = []
        self.failures: list[Failure] = []
        self.batches = 0
        self.errors: list[Exception] = []
        self.refused: set[UUID] = set()
        self.stores_nothing = False
        self.checks = 0
        # In the time of a statement, until so many are taken; of more, it takes none.
        self.most = self.slow_until = math.inf
        self.tried: list[int] = []

    async def check(self) -> None:
        self.checks += 1
        if self.stores_nothing:
            raise asyncpg.NotNullViolationError("told to store nothing")

    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord],
        failures: Sequence[Failure] = (),
    ) -> int:
        self.tried.append(len(predictions))
        if self.errors:
            raise self.errors.pop(0)
        if len(predictions) > self.most and len(self.taken) < self.slow_until:
            raise TimeoutError
        if self.stores_nothing:
            raise asyncpg.NotNullViolationError("told to store nothing")
        if any(each.id in self.refused for each in predictions):
            raise asyncpg.DataError("told to refuse it")
        self.batches += 1
        known = {each.id for each in self.taken}
        self.taken.extend(predictions)
        self.comparisons.extend(comparisons)
        self.failures.extend(failures)
        return len({each.id for each in predictions} - known)


def prediction(text: str = "text") -> Prediction:
    now, answer = datetime.now(UTC), classification(text)
    return Prediction(
        id=new_id(now),
        created_at=now,
        endpoint="/predict",
        model=ModelVersion("v1", answer.revision, answer.engine),
        sentiment=answer.sentiment,
        confidence=answer.confidence,
        scores=answer.scores,
        latency_ms=1.0,
        cache_hit=False,
        truncated=answer.truncated,
        token_count=answer.token_count,
        text_characters=len(text),
        text=text,
    )


def counter(name: str, **labels: str) -> float:
    """The value of a metric; 0 if it was never counted."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def no_repeats() -> Any:
    """In place of the answers that are kept for a key: no request of a test has one."""
    raise AssertionError("a request without an Idempotency-Key asked for its stored answer")
