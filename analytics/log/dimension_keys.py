"""The keys of model versions and A/B tests, small numbers that every row refers to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Table, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.tables import experiments, model_versions
from core.types import Experiment, Failure, ModelVersion, Prediction


class StaleKeys(Exception):
    """Cached keys do not belong to the rows of this database."""


class DimensionKeys:
    """Finds the keys in PostgreSQL, inserts those that are missing, and caches them.

    Each key is resolved in a transaction of its own, before the writers' lock is waited for: its
    row locks would block the process that holds the lock and makes a partition.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.models: dict[ModelVersion, int] = {}
        self.experiments: dict[Experiment, int] = {}
        self._first_seen: dict[ModelVersion | Experiment, datetime] = {}

    async def resolve(
        self, predictions: Iterable[Prediction], failures: Iterable[Failure] = ()
    ) -> None:
        """Put the keys that the rows refer to into `models` and `experiments`.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        models: dict[ModelVersion, datetime] = {}
        tests: dict[Experiment, datetime] = {}
        # The first row of a dimension is the earliest.
        rows: list[Prediction | Failure] = [*predictions, *failures]
        for row in sorted(rows, key=attrgetter("created_at")):
            models.setdefault(row.model, row.created_at)
            if isinstance(row, Prediction) and row.assignment is not None:
                test = row.assignment.experiment
                for model in (test.v1, test.v2):
                    models.setdefault(model, row.created_at)
                tests.setdefault(test, row.created_at)
        for model, seen in models.items():
            if self._is_news(model, seen):
                self.models[model] = await self._key(model_versions, model._asdict(), seen)
                self._first_seen[model] = seen
        for test, seen in tests.items():
            if self._is_news(test, seen):
                values = test.split._asdict() | {
                    "v1_model_version_id": self.models[test.v1],
                    "v2_model_version_id": self.models[test.v2],
                }
                self.experiments[test] = await self._key(experiments, values, seen)
                self._first_seen[test] = seen

    def forget(self) -> None:
        """Empty the cache: the next `resolve` reads the database again."""
        self.models.clear()
        self.experiments.clear()
        self._first_seen.clear()

    async def confirm(self, connection: AsyncConnection) -> None:
        """Check that the rows of all cached keys are those that were read or inserted.

        After a restore, a key may be gone or belong to another model. The transaction keeps the
        tables until its end, so the keys stay right within it.

        Raises:
            StaleKeys: a row is gone or another one.
        """
        columns = model_versions.c
        models = await connection.execute(
            select(columns.version, columns.revision, columns.engine, columns.id).where(
                columns.id.in_(self.models.values())
            )
        )
        if {ModelVersion(*row[:3]): row.id for row in models} != self.models:
            raise StaleKeys("the database was restored: a model version has another key")
        if not self.experiments:
            return
        columns = experiments.c
        tests = await connection.execute(
            select(
                columns.salt,
                columns.v2_percent,
                columns.v1_model_version_id,
                columns.v2_model_version_id,
                columns.id,
            ).where(columns.id.in_(self.experiments.values()))
        )
        known = {
            (*test.split, self.models[test.v1], self.models[test.v2]): key
            for test, key in self.experiments.items()
        }
        if {tuple(row[:4]): row.id for row in tests} != known:
            raise StaleKeys("the database was restored: an A/B test has another key")

    def _is_news(self, dimension: ModelVersion | Experiment, seen: datetime) -> bool:
        """Whether the dimension is unknown, or was seen earlier than known."""
        return dimension not in self._first_seen or seen < self._first_seen[dimension]

    async def _key(self, table: Table, values: dict[str, Any], seen: datetime) -> int:
        find = select(table.c.id).filter_by(**values)
        async with self._engine.begin() as connection:
            if (await connection.execute(find)).first() is None:
                # The insert comes second because a conflict uses up an id too: after 32,767 starts
                # there would be none left.
                await connection.execute(
                    insert(table).values(first_seen=seen, **values).on_conflict_do_nothing()
                )
            key = int((await connection.execute(find)).scalar_one())
            # Another process may have inserted the row with a later time.
            await connection.execute(
                update(table)
                .where(table.c.id == key, table.c.first_seen > seen)
                .values(first_seen=seen)
            )
            return key
