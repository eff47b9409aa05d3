"""How the difference in accuracy and its interval came to be what they are, label by label."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from analytics.ab.common import newest
from analytics.ab.paired import paired_outcomes
from analytics.reader import Reader
from analytics.sql_fragment import SqlFragment
from analytics.tables import BUCKET_SECONDS
from core.types import SENTIMENTS
from stats.outcomes import ArmOutcomes, PairedOutcomes

# An interval takes a millisecond or two.
MAX_POINTS = 60
# The smallest buckets that give no more rows than this to add up.
MAX_BUCKETS = 240
ALPHA = 0.05

_LABELS = ", ".join(f"sum(labelled_{name})::bigint AS {name}" for name in SENTIMENTS)


class AbPoint(BaseModel):
    """Of all texts or subjects up to the end of a bucket."""

    time: datetime = Field(description="start of the bucket")
    labelled: int
    difference: float = Field(description="accuracy of v2 minus that of v1")
    low: float = Field(description="of the interval that holds at every look, 95 %")
    high: float


class AbOverTime(BaseModel):
    """By when the text was first compared, or the subject first seen."""

    paired: list[AbPoint] = Field(description="of the newest pair of models; empty without labels")
    routed: list[AbPoint] = Field(description="of the newest test of the traffic split")


@dataclass(frozen=True, slots=True)
class _Arms:
    v1: ArmOutcomes
    v2: ArmOutcomes


async def ab_over_time(reader: Reader, until: datetime) -> AbOverTime:
    paired, routed = await asyncio.gather(_paired(reader, until), _routed(reader, until))
    return AbOverTime(
        paired=await anyio.to_thread.run_sync(_paired_points, paired),
        routed=await anyio.to_thread.run_sync(_routed_points, routed),
    )


async def _paired(reader: Reader, until: datetime) -> Sequence[RowMapping]:
    pair = await newest(
        reader, "comparison_rollups",
        "v1_model_version_id AS v1, v2_model_version_id AS v2", until,
    )  # fmt: skip
    if pair is None:
        return []
    of_pair = "v1_model_version_id = :v1 AND v2_model_version_id = :v2"
    facts = await _bucketed(reader, "comparison_rollups", of_pair, dict(pair))
    return await reader.select(
        f"bucket, v1_sentiment AS v1, v2_sentiment AS v2, {_LABELS}",
        facts,
        "GROUP BY bucket, v1_sentiment, v2_sentiment ORDER BY bucket",
    )


async def _routed(reader: Reader, until: datetime) -> Sequence[RowMapping]:
    latest = await newest(reader, "assignment_rollups", "experiment_id", until)
    if latest is None:
        return []
    facts = await _bucketed(
        reader, "assignment_rollups", "experiment_id = :experiment_id", dict(latest)
    )
    return await reader.select(
        "bucket, version, sum(labelled)::bigint AS labelled, sum(correct)::bigint AS correct",
        facts,
        "GROUP BY bucket, version ORDER BY bucket",
    )


async def _bucketed(
    reader: Reader, table: str, condition: str, parameters: dict[str, Any]
) -> SqlFragment:
    """Its rollups, in the smallest buckets that are not too many."""

    def of_size(seconds: int) -> SqlFragment:
        sql = f"(SELECT * FROM {table} WHERE bucket_seconds = {seconds} AND {condition})"
        return SqlFragment(sql, parameters)

    _, hour, day = sorted(BUCKET_SECONDS)
    [ends] = await reader.select("min(bucket) AS first, max(bucket) AS last", of_size(hour))
    if ends["first"] is None:
        return of_size(day)
    length = (ends["last"] - ends["first"]).total_seconds() + hour
    return of_size(
        next((size for size in sorted(BUCKET_SECONDS) if length / size <= MAX_BUCKETS), day)
    )


def _paired_points(rows: Sequence[RowMapping]) -> list[AbPoint]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.confidence_sequence import paired_confidence_sequence

    total = PairedOutcomes(0, 0, 0, 0)
    cumulated = []
    for bucket, of_bucket in _by_bucket(rows):
        new = paired_outcomes(of_bucket)
        names = [field.name for field in fields(PairedOutcomes)]
        total = PairedOutcomes(*(getattr(total, name) + getattr(new, name) for name in names))
        if new.labelled:
            cumulated.append((bucket, total))
    points = []
    for time, outcomes in _some(cumulated):
        interval = paired_confidence_sequence(outcomes, ALPHA)
        won, lost = outcomes.only_v2_right, outcomes.only_v1_right
        points.append(
            AbPoint(
                time=time,
                labelled=outcomes.labelled,
                difference=(won - lost) / outcomes.labelled,
                low=interval.low,
                high=interval.high,
            )
        )
    return points


def _routed_points(rows: Sequence[RowMapping]) -> list[AbPoint]:
    from stats.confidence_sequence import arms_confidence_sequence

    counts = {"v1": (0, 0), "v2": (0, 0)}
    cumulated = []
    for bucket, of_bucket in _by_bucket(rows):
        for row in of_bucket:
            labelled, right = counts[row["version"]]
            counts[row["version"]] = labelled + int(row["labelled"]), right + int(row["correct"])
        arms = _Arms(ArmOutcomes(*counts["v1"]), ArmOutcomes(*counts["v2"]))
        if any(row["labelled"] for row in of_bucket) and arms.v1.labelled and arms.v2.labelled:
            cumulated.append((bucket, arms))
    points = []
    for time, arms in _some(cumulated):
        interval = arms_confidence_sequence(arms.v1, arms.v2, ALPHA)
        points.append(
            AbPoint(
                time=time,
                labelled=arms.v1.labelled + arms.v2.labelled,
                difference=arms.v2.right / arms.v2.labelled - arms.v1.right / arms.v1.labelled,
                low=interval.low,
                high=interval.high,
            )
        )
    return points


def _by_bucket(rows: Iterable[RowMapping]) -> Iterator[tuple[datetime, list[RowMapping]]]:
    of_bucket: dict[datetime, list[RowMapping]] = {}
    for row in rows:
        of_bucket.setdefault(row["bucket"], []).append(row)
    yield from of_bucket.items()


def _some(points: Sequence[Any]) -> Sequence[Any]:
    """Evenly spread, the last one always among them."""
    step = -(-len(points) // MAX_POINTS) or 1
    return points[::-1][::step][::-1]
