"""Writes log entries to PostgreSQL and rolls them up: each once, however often it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.ab_rollups import ASSIGN_SUBJECTS, INSERT_COMPARISONS
from analytics.log.dimension_keys import DimensionKeys
from analytics.log.records import ComparisonRecord, PredictionRecord
from analytics.log.rows import (
    COMPARISON_COLUMNS,
    PREDICTION_COLUMNS,
    comparison_row,
    prediction_row,
)
from analytics.partitions import make_partitions
from analytics.rollups import INSERT_AND_ROLL_UP, PLANNED, WRITERS_LOCK
from analytics.tables import failure_rollups
from analytics.upsert_sums import upsert_sums
from core.postgres import timed
from core.types import Failure

INSERT_FAILURES = upsert_sums(
    failure_rollups,
    "(SELECT created_at AS at, model_version_id, texts FROM inserted) AS new",
    preceded_by="""WITH inserted AS (
        INSERT INTO failures (id, created_at, model_version_id, endpoint, texts)
        SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:times AS timestamptz[]), CAST(:models AS smallint[]),
            CAST(:endpoints AS text[]), CAST(:texts AS int[])
        ) ON CONFLICT DO NOTHING RETURNING *
    )""",
)
_CREATED_AT = PREDICTION_COLUMNS.index("created_at")
_EXPERIMENT_ID = PREDICTION_COLUMNS.index("experiment_id")


class LogWriter:
    """One transaction a batch: COPY into a staging table, then an insert that skips known ids.

    The skip makes a retry safe when a commit went through and only its answer was lost; what was
    skipped is not counted again.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._identities = DimensionKeys(engine)

    async def write(
        self,
        predictions: Sequence[PredictionRecord],
        comparisons: Sequence[ComparisonRecord] = (),
        failures: Sequence[Failure] = (),
    ) -> None:
        """Write everything or nothing. Raises what the database raises (`DATABASE_FAILURES`)."""
        await self._identities.learn(predictions, failures)
        rows = [prediction_row(one, self._identities) for one in predictions]
        async with timed("copy"), self._engine.begin() as connection:
            await store(connection, rows, [comparison_row(each) for each in comparisons])
            if failures:
                await self._store_failures(connection, failures)

    async def _store_failures(
        self, connection: AsyncConnection, failures: Sequence[Failure]
    ) -> None:
        await connection.execute(
            INSERT_FAILURES,
            {
                "ids": [failure.id for failure in failures],
                "times": [failure.created_at for failure in failures],
                "models": [self._identities.models[failure.model] for failure in failures],
                "endpoints": [failure.endpoint for failure in failures],
                "texts": [failure.texts for failure in failures],
            },
        )


async def store(
    connection: AsyncConnection,
    prediction_rows: Sequence[tuple[Any, ...]],
    comparison_rows: Sequence[tuple[Any, ...]] = (),
) -> None:
    """Insert the rows that are not there yet and roll them up, in the connection's transaction.

    The predictions of every comparison are among the rows.
    """
    await _copy_to_staging(connection, "predictions", PREDICTION_COLUMNS, prediction_rows)
    await connection.execute(WRITERS_LOCK)
    await make_partitions(connection, {row[_CREATED_AT].date() for row in prediction_rows})
    await connection.execute(PLANNED)
    await connection.execute(INSERT_AND_ROLL_UP)
    if any(row[_EXPERIMENT_ID] is not None for row in prediction_rows):
        await connection.execute(ASSIGN_SUBJECTS)
    if comparison_rows:
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, comparison_rows)
        await connection.execute(INSERT_COMPARISONS)


async def _copy_to_staging(
    connection: AsyncConnection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    staging = f"{table}_staging"
    await connection.execute(
        text(f"CREATE TEMP TABLE {staging} (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
    )
    raw = await connection.get_raw_connection()
    await raw.driver_connection.copy_records_to_table(  # type: ignore[union-attr]
        staging, records=rows, columns=columns, schema_name="pg_temp"
    )
