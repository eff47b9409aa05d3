"""Writes log entries to PostgreSQL and rolls them up: each once, however often it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.database import timed
from analytics.partitions import make_partitions
from analytics.rollups import INSERT_AND_ROLL_UP, PLANNED, WRITERS_LOCK
from analytics.rows import (
    COMPARISON_COLUMNS,
    PREDICTION_COLUMNS,
    TextStorage,
    comparison_row,
    prediction_row,
)
from analytics.tables import model_versions
from values import Comparison, Prediction, Version

INSERT_COMPARISONS = (
    "INSERT INTO comparisons SELECT * FROM comparisons_staging ON CONFLICT DO NOTHING"
)
_CREATED_AT = PREDICTION_COLUMNS.index("created_at")
ModelKey = tuple[Version, str, str]


class LogWriter:
    """One transaction a batch: COPY into a staging table, then an insert that skips known ids.

    The skip makes a retry safe when a commit went through and only its answer was lost; what was
    skipped is not counted again.
    """

    def __init__(self, engine: AsyncEngine, *, text_storage: TextStorage) -> None:
        self._engine = engine
        self._text_storage = text_storage
        self._model_version_ids: dict[ModelKey, int] = {}

    async def write(
        self, predictions: Sequence[Prediction], comparisons: Sequence[Comparison]
    ) -> None:
        """Write everything or nothing. Raises what the database raises (`DATABASE_FAILURES`)."""
        for key in {_model_key(prediction) for prediction in predictions}:
            if key not in self._model_version_ids:
                # By itself: who waits for the writers' lock must not hold what a partition that is
                # made needs.
                async with self._engine.begin() as connection:
                    self._model_version_ids[key] = await model_version_id(connection, key)
        rows = [
            prediction_row(
                prediction, self._model_version_ids[_model_key(prediction)], self._text_storage
            )
            for prediction in predictions
        ]
        async with timed("copy"), self._engine.begin() as connection:
            await store(connection, rows, [comparison_row(each) for each in comparisons])


async def store(
    connection: AsyncConnection,
    prediction_rows: Sequence[tuple[Any, ...]],
    comparison_rows: Sequence[tuple[Any, ...]] = (),
) -> None:
    """Insert the rows that are not there yet and roll them up, in the connection's transaction."""
    await _copy_to_staging(connection, "predictions", PREDICTION_COLUMNS, prediction_rows)
    await connection.execute(WRITERS_LOCK)
    await make_partitions(connection, {row[_CREATED_AT].date() for row in prediction_rows})
    await connection.execute(PLANNED)
    await connection.execute(INSERT_AND_ROLL_UP)
    if comparison_rows:
        await _copy_to_staging(connection, "comparisons", COMPARISON_COLUMNS, comparison_rows)
        await connection.execute(text(INSERT_COMPARISONS))


def _model_key(prediction: Prediction) -> ModelKey:
    return (prediction.version, prediction.classification.revision, prediction.engine)


async def model_version_id(connection: AsyncConnection, key: ModelKey) -> int:
    version, revision, engine = key
    values = {"version": version, "revision": revision, "engine": engine}
    known = select(model_versions.c.id).filter_by(**values)
    found = (await connection.execute(known)).scalar_one_or_none()
    if found is not None:
        return int(found)
    # Not tried first: a conflict, too, uses up an id, and 32,767 starts would use up all of them.
    await connection.execute(
        insert(model_versions)
        .values(first_seen=datetime.now(UTC), **values)
        .on_conflict_do_nothing()
    )
    return int((await connection.execute(known)).scalar_one())


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
