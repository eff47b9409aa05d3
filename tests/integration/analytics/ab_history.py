"""Predictions, comparisons and labels of a test, written as the service writes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.report import AbTest, ab_test
from analytics.feedback.store import FeedbackStore, store_labels
from analytics.log.records import TextStorage
from analytics.reader import Reader
from core.keyed_hash import COMPARISON_SALT, subject_digest
from core.types import (
    SENTIMENTS,
    VERSIONS,
    Assignment,
    Comparison,
    Experiment,
    ModelVersion,
    Prediction,
    Sentiment,
    Split,
)
from core.uuid7 import new_id
from rollout.bucketing import assign
from tests.integration.predictions import PredictionWriter, make_prediction

START = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
END = START + timedelta(hours=4)


def scores(said: Sentiment, sure: float) -> dict[Sentiment, float]:
    rest = (1 - sure) / 2
    return {name: sure if name == said else rest for name in SENTIMENTS}


def experiment(percent: float = 50, v2: str = "v2-revision", salt: str = "salt") -> Experiment:
    v1 = ModelVersion("v1", "v1-revision", "fake")
    return Experiment(Split(salt, percent), v1, ModelVersion("v2", v2, "fake"))


NO_SPOOL = Path("/nowhere")


@dataclass
class History:
    """What is written, and what is known of it."""

    seed: int
    predictions: list[Prediction] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = random.Random(self.seed)

    def moment(self) -> datetime:
        seconds = (END - START).total_seconds()
        return START + timedelta(seconds=self.numbers.uniform(0, seconds))

    def compare(
        self, of: str, at: datetime | None = None, subject: str | None = None
    ) -> Comparison:
        at = at or self.moment()
        key = None if subject is None else subject_digest(subject, COMPARISON_SALT)
        # The same text always gets the same answers.
        dice = random.Random(of)
        v1, v2 = (
            replace(
                make_prediction(
                    of, version=version, created_at=at, endpoint="/predict/ab-compare",
                    scores=scores(dice.choice(SENTIMENTS), dice.uniform(0.5, 1)),
                ),
                subject_key=key,
            )
            for version in VERSIONS
        )  # fmt: skip
        made = Comparison(new_id(at), at, v1, v2)
        self.predictions += [v1, v2]
        self.comparisons.append(made)
        return made

    def assign(
        self, subject: str, of: Experiment | None = None, at: datetime | None = None
    ) -> Prediction:
        of = of or experiment()
        key = subject_digest(subject, of.split.salt)
        made = make_prediction(
            version=assign(key, of.split.v2_percent), created_at=at or self.moment(),
            endpoint="/predict/ab", latency_ms=self.numbers.lognormvariate(2, 1),
            scores=scores(self.numbers.choice(SENTIMENTS), self.numbers.uniform(0.5, 1)),
        )  # fmt: skip
        made = replace(made, assignment=Assignment(of, key))
        self.predictions.append(made)
        return made

    async def write(self, engine: AsyncEngine, storage: TextStorage = "hash") -> None:
        """In three batches, each of them twice, as after a lost answer."""
        writer = PredictionWriter(engine, storage)
        self.comparisons.sort(key=lambda pair: pair.created_at)
        for number in range(3):
            pairs = self.comparisons[number::3]
            linked = {p.id for pair in pairs for p in (pair.v1, pair.v2)}
            single = [p for p in self.predictions if p.assignment is not None][number::3]
            batch = [p for p in self.predictions if p.id in linked] + single
            for _ in range(2):
                await writer.write(batch, pairs)


async def give(engine: AsyncEngine, labels: Sequence[tuple[UUID, Sentiment]]) -> None:
    store = FeedbackStore(engine, NO_SPOOL)
    for prediction_id, label in labels:
        await store.add(prediction_id, label)


async def give_at_once(engine: AsyncEngine, labels: Sequence[tuple[UUID, Sentiment]]) -> None:
    """Store labels of different predictions in one batch, as an import does."""
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        await store_labels(connection, [(*label, now) for label in labels])


async def reply(
    engine: AsyncEngine, since: datetime | None = None, until: datetime = END + timedelta(hours=1)
) -> AbTest:
    return await ab_test(Reader(engine), since, until)
