"""What both kinds of A/B comparison tell and ask."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from analytics.reader import Reader
from analytics.sql_fragment import SqlFragment
from core.types import Version


class Interval(BaseModel):
    low: float
    high: float


class Model(BaseModel):
    revision: str
    engine: str


class LabelsNeeded(BaseModel):
    v1: int
    v2: int


class Verdict(BaseModel):
    """Holds however often one looks, if `since` stays what it is (docs/statistics.md)."""

    finding: Literal["v2_better", "v1_better", "no_difference_yet", "sample_ratio_mismatch"]
    sentence: str
    more_labels: LabelsNeeded | None = Field(
        description="of each version's predictions, if the accuracies seen so far were the true "
        "ones; null where nothing would settle it, or nothing is known"
    )


async def newest(reader: Reader, table: str, columns: str, until: datetime) -> RowMapping | None:
    """What the newest bucket before `until` is about."""
    rows = await reader.select(
        columns,
        SqlFragment(
            f"(SELECT * FROM {table} WHERE bucket_seconds = 60 AND bucket < :until "
            "ORDER BY bucket DESC LIMIT 1)",
            {"until": until},
        ),
    )
    return rows[0] if rows else None


async def models_of(reader: Reader, **ids: int) -> dict[Version, RowMapping]:
    rows = await reader.select(
        "version, revision, engine, first_seen",
        SqlFragment("(SELECT * FROM model_versions WHERE id IN (:v1, :v2))", ids),
    )
    return {row["version"]: row for row in rows}


def model(row: RowMapping) -> Model:
    return Model(revision=row["revision"], engine=row["engine"])
