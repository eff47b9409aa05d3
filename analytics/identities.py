"""The small numbers that stand for model versions and A/B tests in every row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.tables import experiments, model_versions
from values import Experiment, ModelVersion, Prediction


class Identities:
    """Finds them, makes them where there are none, and remembers."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.models: dict[ModelVersion, int] = {}
        self.experiments: dict[Experiment, int] = {}

    async def learn(self, predictions: Iterable[Prediction]) -> None:
        """Know all that `predictions` are of. Raises `DATABASE_FAILURES`.

        In transactions of their own, for who waits for the writers' lock must not hold what a
        partition that is made needs.
        """
        for prediction in predictions:
            await self._learn_model(prediction.model, prediction.created_at)
            if prediction.assignment is not None:
                experiment = prediction.assignment.experiment
                await self._learn_experiment(experiment, prediction.created_at)

    async def _learn_model(self, model: ModelVersion, seen: datetime) -> None:
        if model not in self.models:
            values = {"version": model.version, "revision": model.revision, "engine": model.engine}
            self.models[model] = await self._identity(model_versions, values, seen)

    async def _learn_experiment(self, experiment: Experiment, seen: datetime) -> None:
        if experiment not in self.experiments:
            for model in (experiment.v1, experiment.v2):
                await self._learn_model(model, seen)
            values = {
                "salt": experiment.split.salt,
                "v2_percent": experiment.split.v2_percent,
                "v1_model_version_id": self.models[experiment.v1],
                "v2_model_version_id": self.models[experiment.v2],
            }
            self.experiments[experiment] = await self._identity(experiments, values, seen)

    async def _identity(self, table: Table, values: dict[str, Any], seen: datetime) -> int:
        async with self._engine.begin() as connection:
            known = select(table.c.id).filter_by(**values)
            found: int | None = (await connection.execute(known)).scalar_one_or_none()
            if found is not None:
                return found
            # Not tried first: a conflict, too, uses up an id, and 32,767 starts would use up all.
            await connection.execute(
                insert(table).values(first_seen=seen, **values).on_conflict_do_nothing()
            )
            made = await connection.execute(known)
            return int(made.scalar_one())
