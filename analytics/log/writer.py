"""Writes log entries to PostgreSQL and adds them to the rollups, each entry once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.ab_rollups import ASSIGN_SUBJECTS, INSERT_COMPARISONS
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
from analytics.rollups import INSERT_AND_ROLL_UP, PLANNED, WRITERS_LOCK
from analytics.tables import failure_rollups
from analytics.upsert_sums import upsert_sums
from core.postgres import timed
from core.types import Failure, Prediction

INSERT_FAILURES = upsert_sums(
    failure_rollups,
    "(SELECT created_at AS at, model_version_id, texts FROM inserted) AS new",
    preceded_by="""WITH inserted AS (
        INSERT INTO failures SELECT * FROM failures_staging ON CONFLICT DO NOTHING RETURNING *
    )""",
)


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
    await connection.execute(PLANNED)
    await connection.execute(INSERT_AND_ROLL_UP)
    if any(prediction.assignment is not None for prediction in predictions):
        await connection.execute(ASSIGN_SUBJECTS)
    if comparisons:
        links = [comparison_row(comparison) for comparison in comparisons]
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, links)
        await connection.execute(INSERT_COMPARISONS)
    if failures:
        counts = [failure_row(failure, keys) for failure in failures]
        await _copy_to_staging(connection, "failures", FAILURE_COLUMNS, counts)
        await connection.execute(INSERT_FAILURES)


async def _copy_to_staging(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """COPY `rows` into a table like `table`, which the transaction's end drops."""
    await connection.execute(
        text(f"CREATE TEMP TABLE {table}_staging (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
    )
    raw = await connection.get_raw_connection()
    await raw.driver_connection.copy_records_to_table(  # type: ignore[union-attr]
        f"{table}_staging", records=rows, columns=columns, schema_name="pg_temp"
    )
