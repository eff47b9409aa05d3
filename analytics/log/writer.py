"""Writes log entries to PostgreSQL and adds them to the rollups, each entry once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord
from analytics.partitions import make_partitions
from analytics.rollups import WRITERS_LOCK
from core.postgres import timed
from core.types import SENTIMENTS, Failure, Prediction

_INSERT_PREDICTIONS = sql.load("insert_predictions")
_ASSIGN_SUBJECTS = sql.load("assign_subjects")
_INSERT_COMPARISONS = sql.load("insert_comparisons")
_INSERT_FAILURES = sql.load("insert_failures")
# PostgreSQL has no statistics of rows that the same statement makes. It expects one group where
# there are a thousand, and would loop over them for each row.
_WITHOUT_NESTED_LOOPS = text("SET LOCAL enable_nestloop = off")

# A field of an entry goes to the column of its name. The exceptions: `model` and the experiment of
# `assignment` are stored as their keys, and each score has a column of its own.
_OWN_NAME = tuple(
    field
    for field in Prediction.__struct_fields__
    if field not in {"model", "scores", "text", "assignment"}
)
PREDICTION_COLUMNS = (
    *_OWN_NAME,
    "text",
    "model_version_id",
    *(f"score_{sentiment}" for sentiment in SENTIMENTS),
    "experiment_id",
    "subject_key",
)
COMPARISON_COLUMNS = ComparisonRecord.__struct_fields__
FAILURE_COLUMNS = ("id", "created_at", "endpoint", "texts", "model_version_id")

_own_name_values = attrgetter(*_OWN_NAME)


class LogWriter:
    """Writes a batch in one transaction: COPY to staging tables, then inserts that skip known ids.

    A retry is safe when a commit succeeded and only its reply was lost: the rows that are skipped
    are not counted again.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._keys = DimensionKeys(engine)

    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord] = (),
        failures: Sequence[Failure] = (),
    ) -> None:
        """Write all of the batch or nothing. The predictions of every comparison are in the batch.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away, or refuses the batch.
        """
        await self._keys.resolve(predictions, failures)
        async with timed("copy"), self._engine.begin() as connection:
            await store(connection, self._keys, predictions, comparisons, failures)


async def store(
    connection: AsyncConnection,
    keys: DimensionKeys,
    predictions: Sequence[Prediction],
    comparisons: Sequence[ComparisonRecord] = (),
    failures: Sequence[Failure] = (),
) -> None:
    """Write the batch in the connection's transaction; `keys` has resolved it."""
    rows = [_prediction_row(prediction, keys) for prediction in predictions]
    await _copy_to_staging(connection, "predictions", PREDICTION_COLUMNS, rows)
    await connection.execute(WRITERS_LOCK)
    days = {prediction.created_at.date() for prediction in predictions}
    await make_partitions(connection, days)
    await connection.execute(_WITHOUT_NESTED_LOOPS)
    await connection.execute(_INSERT_PREDICTIONS)
    if any(prediction.assignment is not None for prediction in predictions):
        await connection.execute(_ASSIGN_SUBJECTS)
    if comparisons:
        links = list(map(attrgetter(*COMPARISON_COLUMNS), comparisons))
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, links)
        await connection.execute(_INSERT_COMPARISONS)
    if failures:
        own_name_values = attrgetter(*FAILURE_COLUMNS[:-1])
        counts = [(*own_name_values(failure), keys.models[failure.model]) for failure in failures]
        await _copy_to_staging(connection, "failures", FAILURE_COLUMNS, counts)
        await connection.execute(_INSERT_FAILURES)


def _prediction_row(prediction: Prediction, keys: DimensionKeys) -> tuple[Any, ...]:
    """A row in the order of `PREDICTION_COLUMNS`."""
    assignment = prediction.assignment
    return (
        *_own_name_values(prediction),
        prediction.text or None,
        keys.models[prediction.model],
        # NULL is a class that the checkpoint does not have.
        *map(prediction.scores.get, SENTIMENTS),
        assignment and keys.experiments[assignment.experiment],
        assignment and assignment.subject_key,
    )


async def _copy_to_staging(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """COPY `rows` into a table like `table`, which the transaction's end drops."""
    await connection.execute(
        sql.ddl(
            "CREATE TEMP TABLE %(table)s_staging (LIKE %(table)s INCLUDING DEFAULTS) "
            "ON COMMIT DROP",
            table=table,
        )
    )
    raw = await connection.get_raw_connection()
    await raw.driver_connection.copy_records_to_table(  # type: ignore[union-attr]
        f"{table}_staging", records=rows, columns=columns, schema_name="pg_temp"
    )
