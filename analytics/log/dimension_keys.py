"""The keys of model versions and A/B tests, small numbers that every row refers to.

A prediction refers to its version, weights and engine. An A/B test refers to versions and weights:
it goes on when another engine is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.hash_keys import FIRST_KEY, HashKeys
from analytics.log.records import ComparisonRecord
from analytics.tables import experiments, model_versions
from core.types import Experiment, Failure, ModelVersion, Prediction


class StaleKeys(Exception):
    """Cached keys do not belong to the rows of this database."""


class DimensionKeys:
    """Finds the keys in PostgreSQL, inserts those that are missing, and caches them.

    Each key is resolved in a transaction of its own, before the writers' lock is waited for: its
    row locks would block the process that holds the lock and makes a partition.
    """

    def __init__(self, engine: AsyncEngine, hash_keys: Sequence[bytes] = ()) -> None:
        """`hash_keys`: the keys of LOG_HASH_KEY, newest first."""
        self._engine = engine
        # The keys of hashes, which are secrets; all others here are numbers of rows.
        self.hashes = HashKeys(hash_keys)
        self.models: dict[ModelVersion, int] = {}
        # The keys of the rows that stand for the same weights with any engine.
        self.weights: dict[ModelVersion, int] = {}
        self.experiments: dict[Experiment, int] = {}
        self.experiment_hash_keys: dict[Experiment, int] = {}
        # Of the predictions of the batch that are compared; all others have the newest key.
        self.text_hash_keys: dict[UUID, int] = {}
        self._first_seen: dict[ModelVersion | Experiment, datetime] = {}

    async def resolve(
        self, predictions: Iterable[Prediction], failures: Iterable[Failure] = ()
    ) -> None:
        """Put the keys that the rows refer to into `models`, `weights` and `experiments`.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        await self.hashes.refresh(self._engine)
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
                key = await self._key(model_versions, model._asdict(), seen)
                self.models[model], self.weights[model] = key, await self._weights_of(model, key)
                self._first_seen[model] = seen
        for test, seen in tests.items():
            if self._is_news(test, seen):
                values = test.split._asdict() | {
                    "v1_model_version_id": self.weights[test.v1],
                    "v2_model_version_id": self.weights[test.v2],
                }
                of_new = {
                    "hash_key_id": self.hashes.current,
                    "label_share": test.split.v2_percent / 100,
                }
                key = await self._key(experiments, values, seen, of_new)
                self.experiment_hash_keys[test] = await self.hashes.of_experiment(self._engine, key)
                self.experiments[test] = key
                self._first_seen[test] = seen

    async def resolve_pairs(
        self, predictions: Iterable[Prediction], comparisons: Iterable[ComparisonRecord]
    ) -> None:
        """Put the hash key of each compared prediction's text into `text_hash_keys`.

        `resolve` has found the models. The predictions of every comparison are among them.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        weights = {prediction.id: self.weights[prediction.model] for prediction in predictions}
        pairs = {
            comparison: (weights[comparison.v1_prediction_id], weights[comparison.v2_prediction_id])
            for comparison in comparisons
        }
        hash_keys = await self.hashes.of_pairs(self._engine, pairs.values())
        self.text_hash_keys = {
            id_: hash_keys[pair]
            for comparison, pair in pairs.items()
            for id_ in (comparison.v1_prediction_id, comparison.v2_prediction_id)
        }

    def forget(self) -> None:
        """Empty the cache: the next `resolve` reads the database again."""
        self.models.clear()
        self.weights.clear()
        self.experiments.clear()
        self.experiment_hash_keys.clear()
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
            select(
                columns.version, columns.revision, columns.engine, columns.id, columns.weights_id
            ).where(columns.id.in_(self.models.values()))
        )
        cached = {model: (key, self.weights[model]) for model, key in self.models.items()}
        if {ModelVersion(*row[:3]): (row.id, row.weights_id) for row in models} != cached:
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
                func.coalesce(columns.hash_key_id, FIRST_KEY),
                columns.id,
            ).where(columns.id.in_(self.experiments.values()))
        )
        known = {
            (
                *test.split,
                self.weights[test.v1],
                self.weights[test.v2],
                self.experiment_hash_keys[test],
            ): key
            for test, key in self.experiments.items()
        }
        if {tuple(row[:5]): row.id for row in tests} != known:
            raise StaleKeys("the database was restored: an A/B test has another key")

    def _is_news(self, dimension: ModelVersion | Experiment, seen: datetime) -> bool:
        """Whether the dimension is unknown, or was seen earlier than known."""
        return dimension not in self._first_seen or seen < self._first_seen[dimension]

    async def _key(
        self,
        table: Table,
        values: dict[str, Any],
        seen: datetime,
        of_new: Mapping[str, Any] | None = None,
    ) -> int:
        """The key of the row with `values`; a new row has `of_new` too."""
        find = select(table.c.id).filter_by(**values)
        async with self._engine.begin() as connection:
            if (await connection.execute(find)).first() is None:
                # The insert comes second because a conflict uses up an id too: after 32,767 starts
                # there would be none left.
                await connection.execute(
                    insert(table)
                    .values(first_seen=seen, **values, **(of_new or {}))
                    .on_conflict_do_nothing()
                )
            key = int((await connection.execute(find)).scalar_one())
            # Another process may have inserted the row with a later time.
            await connection.execute(
                update(table)
                .where(table.c.id == key, table.c.first_seen > seen)
                .values(first_seen=seen)
            )
            return key

    async def _weights_of(self, model: ModelVersion, key: int) -> int:
        """The row that stands for the weights: that of other engines, or else `key` itself."""
        columns = model_versions.c
        same = columns.version == model.version, columns.revision == model.revision
        known = select(columns.weights_id).where(columns.id == key)
        async with self._engine.begin() as connection:
            if (await connection.execute(known)).scalar_one() is None:
                # Processes that bring the first engines of the same weights take turns here.
                first = select(columns.id).where(*same).order_by(columns.id).limit(1)
                await connection.execute(first.with_for_update(key_share=True))
                shared = select(func.coalesce(func.min(columns.weights_id), key)).where(*same)
                await connection.execute(
                    update(model_versions)
                    .where(columns.id == key, columns.weights_id.is_(None))
                    .values(weights_id=shared.scalar_subquery())
                )
            return int((await connection.execute(known)).scalar_one())
