"""Writes log entries to PostgreSQL and adds them to the rollups, each entry once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics import sql
from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord
from analytics.log.rows import (
    COMPARISON_COLUMNS,
    FAILURE_COLUMNS,
    PREDICTION_COLUMNS,
    comparison_row,
    failure_row,
    prediction_row,
)
from analytics.partitions import make_partitions
from analytics.rollups import WRITERS_LOCK
from core.postgres import timed
from core.types import Failure, Prediction

_INSERT_PREDICTIONS = sql.load("insert_predictions")
_ASSIGN_SUBJECTS = sql.load("assign_subjects")
_INSERT_COMPARISONS = sql.load("insert_comparisons")
_INSERT_FAILURES = sql.load("insert_failures")
# PostgreSQL has no statistics of rows that the same statement makes. It expects one group where
# there are a thousand, and would loop over them for each row.
_WITHOUT_NESTED_LOOPS = text("SET LOCAL enable_nestloop = off")


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
    rows = [prediction_row(prediction, keys) for prediction in predictions]
    await _copy_to_staging(connection, "predictions", PREDICTION_COLUMNS, rows)
    await connection.execute(WRITERS_LOCK)
    days = {prediction.created_at.date() for prediction in predictions}
    await make_partitions(connection, days)
    await connection.execute(_WITHOUT_NESTED_LOOPS)
    await connection.execute(_INSERT_PREDICTIONS)
    if any(prediction.assignment is not None for prediction in predictions):
        await connection.execute(_ASSIGN_SUBJECTS)
    if comparisons:
        links = [comparison_row(comparison) for comparison in comparisons]
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, links)
        await connection.execute(_INSERT_COMPARISONS)
    if failures:
        counts = [failure_row(failure, keys) for failure in failures]
        await _copy_to_staging(connection, "failures", FAILURE_COLUMNS, counts)
        await connection.execute(_INSERT_FAILURES)


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
