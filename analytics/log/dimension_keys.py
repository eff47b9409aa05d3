"""The small numbers that stand for model versions and A/B tests in every row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Table, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.records import PredictionRecord
from analytics.tables import experiments, model_versions
from core.types import Experiment, Failure, ModelVersion

_Key = TypeVar("_Key", ModelVersion, Experiment)


class DimensionKeys:
    """Finds them, makes them where there are none, and remembers.

    Each in a transaction of its own, for who waits for the writers' lock must not hold what a
    partition that is made needs.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.models: dict[ModelVersion, int] = {}
        self.experiments: dict[Experiment, int] = {}
        self._first_seen: dict[ModelVersion | Experiment, datetime] = {}

    async def learn(
        self, predictions: Iterable[PredictionRecord], failures: Iterable[Failure] = ()
    ) -> None:
        """Know all that they are of. Raises `DATABASE_FAILURES`."""
        models: dict[ModelVersion, datetime] = {}
        tests: dict[Experiment, datetime] = {}
        for prediction in predictions:
            _keep_earliest(models, prediction.model, prediction.created_at)
            if prediction.assignment is not None:
                test = prediction.assignment.experiment
                _keep_earliest(tests, test, prediction.created_at)
                for model in (test.v1, test.v2):
                    _keep_earliest(models, model, prediction.created_at)
        for failure in failures:
            _keep_earliest(models, failure.model, failure.created_at)
        for model, seen in models.items():
            if self._tells_something(model, seen):
                self.models[model] = await self._identity(model_versions, model._asdict(), seen)
                self._first_seen[model] = seen
        for test, seen in tests.items():
            if self._tells_something(test, seen):
                values = test.split._asdict() | {
                    "v1_model_version_id": self.models[test.v1],
                    "v2_model_version_id": self.models[test.v2],
                }
                self.experiments[test] = await self._identity(experiments, values, seen)
                self._first_seen[test] = seen

    def _tells_something(self, key: ModelVersion | Experiment, seen: datetime) -> bool:
        return key not in self._first_seen or seen < self._first_seen[key]

    async def _identity(self, table: Table, values: dict[str, Any], seen: datetime) -> int:
        known = select(table.c.id).filter_by(**values)
        async with self._engine.begin() as connection:
            if (await connection.execute(known)).first() is None:
                # Not tried first: a conflict, too, uses up an id, and 32,767 starts would use up
                # all of them.
                await connection.execute(
                    insert(table).values(first_seen=seen, **values).on_conflict_do_nothing()
                )
            identity = int((await connection.execute(known)).scalar_one())
            # Other processes may have been slower to write what they saw sooner.
            await connection.execute(
                update(table)
                .where(table.c.id == identity, table.c.first_seen > seen)
                .values(first_seen=seen)
            )
            return identity


def _keep_earliest(of: dict[_Key, datetime], key: _Key, seen: datetime) -> None:
    if key not in of or seen < of[key]:
        of[key] = seen
