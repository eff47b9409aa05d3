"""Queries and fields that both kinds of A/B comparison need."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, func, select

from analytics.reader import AnyRow, Reader
from analytics.shape import Query
from analytics.tables import (
    BUCKET_SECONDS,
    comparison_rollups,
    experiments,
    model_versions,
    rollups,
)
from core.types import Version
from stats.results import Result

HOUR_SECONDS = 3600
# The pair of models that a comparison is about.
PAIR = (
    comparison_rollups.c.v1_model_version_id.label("v1"),
    comparison_rollups.c.v2_model_version_id.label("v2"),
)


class Model(Result):
    revision: str
    engine: str


async def newest(
    reader: Reader, table: Table, until: datetime, *columns: ColumnElement[Any]
) -> AnyRow | None:
    """`columns` of the newest rollup before `until`; None if there is none."""
    # A test whose last text or subject is new no more has nothing but its days.
    for seconds in (min(BUCKET_SECONDS), max(BUCKET_SECONDS)):
        statement = (
            select(*columns)
            .where(table.c.bucket_seconds == seconds, table.c.bucket < until)
            .order_by(table.c.bucket.desc())
            .limit(1)
        )
        if rows := await reader.select(Query(statement)):
            return rows[0]
    return None


async def experiment_of(reader: Reader, experiment_id: int) -> AnyRow:
    """The split and the models of a test."""
    chosen = select(experiments).where(experiments.c.id == experiment_id)
    [experiment] = await reader.select(Query(chosen))
    return experiment


async def models_of(reader: Reader, v1: int, v2: int) -> dict[Version, AnyRow]:
    """Revision and first_seen of both models, and the engine that computed last."""
    engines = model_versions.alias()
    last_used = (
        select(engines.c.engine)
        .join_from(rollups, engines, engines.c.id == rollups.c.model_version_id)
        .where(
            rollups.c.bucket_seconds == HOUR_SECONDS,
            func.coalesce(engines.c.weights_id, engines.c.id) == model_versions.c.id,
        )
        .order_by(rollups.c.bucket.desc(), engines.c.first_seen.desc())
        .limit(1)
        .scalar_subquery()
    )
    statement = select(
        model_versions.c.version,
        model_versions.c.revision,
        model_versions.c.first_seen,
        func.coalesce(last_used, model_versions.c.engine).label("engine"),
    ).where(model_versions.c.id.in_((v1, v2)))
    return {row.version: row for row in await reader.select(Query(statement))}
