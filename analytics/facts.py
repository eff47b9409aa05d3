"""The numbers of a time range as SQL: rollups where they cover it, the rows themselves at its ends.

However long the range, it reads a few hundred rollups of each model version, and the rows of less
than two minutes; and the numbers are those of exactly the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from analytics.buckets import Segment, segments
from analytics.rollups import BINS
from analytics.time_range import TimeRange
from ids import id_range
from values import SENTIMENTS, Endpoint, Version

_COUNTS = ", ".join(
    f"count(*) FILTER (WHERE sentiment = '{sentiment}') AS {sentiment}" for sentiment in SENTIMENTS
)


@dataclass(frozen=True, slots=True)
class Facts:
    """A query in parentheses, to be selected from, and its parameters."""

    sql: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about; of every version and endpoint by default."""

    span: TimeRange
    version: Version | None = None
    endpoint: Endpoint | None = None


def counts(scope: Scope, largest_bucket: timedelta | None = None) -> Facts:
    """Sums by version, revision, endpoint, cache_hit and time, the start of a bucket or a minute.

    Columns: those, and negative, neutral, positive, truncated, confidence_sum, latency_ms_sum.
    Buckets are of at most `largest_bucket`, so that the sums of longer ones can be made of them.
    """
    columns = f"{', '.join(SENTIMENTS)}, truncated, confidence_sum, latency_ms_sum"
    rolled = f"SELECT bucket AS time, model_version_id, endpoint, cache_hit, {columns}"
    raw = (
        f"SELECT date_trunc('minute', created_at) AS time, model_version_id, endpoint, cache_hit, "
        f"{_COUNTS}, count(*) FILTER (WHERE truncated) AS truncated, "
        "sum(confidence::double precision) AS confidence_sum, "
        "sum(latency_ms::double precision) AS latency_ms_sum"
    )
    return _facts(scope, largest_bucket, f"{rolled} FROM rollups WHERE", raw, "")


def histogram(scope: Scope, measure: str, largest_bucket: timedelta | None = None) -> Facts:
    """How many predictions each bin of `measure` (`rollups.BINS`) holds; else as `counts`.

    Columns: version, revision, endpoint, cache_hit, time, bin, predictions.
    """
    rolled = (
        "SELECT bucket AS time, model_version_id, endpoint, cache_hit, bin, predictions "
        f"FROM rollups, unnest({measure}_bins, {measure}_counts) AS h (bin, predictions) WHERE"
    )
    raw = (
        "SELECT date_trunc('minute', created_at) AS time, model_version_id, endpoint, cache_hit, "
        f"{BINS[measure].sql(measure)} AS bin, count(*) AS predictions"
    )
    return _facts(scope, largest_bucket, rolled, raw, ", 5")


def _facts(
    scope: Scope, largest_bucket: timedelta | None, rolled: str, raw: str, more_groups: str
) -> Facts:
    covering = segments(scope.span, largest_bucket) if largest_bucket else segments(scope.span)
    parameters: dict[str, Any] = {}
    parts = []
    for segment in covering:
        if segment.size is None:
            within = _rows_between(parameters, segment)
            parts.append(f"{raw} FROM predictions WHERE {within} GROUP BY 1, 2, 3, 4{more_groups}")
        else:
            seconds = int(segment.size.total_seconds())
            within = _between("bucket", parameters, segment)
            parts.append(f"{rolled} bucket_seconds = {seconds} AND {within}")
    conditions = _conditions(scope, parameters)
    return Facts(
        "(SELECT m.version, m.revision, f.* FROM ("
        + " UNION ALL ".join(parts)
        + ") AS f JOIN model_versions AS m ON m.id = f.model_version_id"
        + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        + ")",
        parameters,
    )


def _conditions(scope: Scope, parameters: dict[str, Any]) -> Sequence[str]:
    asked = {"m.version": scope.version, "f.endpoint": scope.endpoint}
    conditions = []
    for column, value in asked.items():
        if value is not None:
            name = column.replace(".", "_")
            parameters[name] = value
            conditions.append(f"{column} = :{name}")
    return conditions


def _rows_between(parameters: dict[str, Any], segment: Segment) -> str:
    """The ids lead PostgreSQL to the rows, the times are what was asked for."""
    number = len(parameters)
    low, high = id_range(segment.since, segment.until)
    parameters[f"low_{number}"], parameters[f"high_{number}"] = low, high
    within = _between("created_at", parameters, segment)
    return f"id >= :low_{number} AND id < :high_{number} AND {within}"


def _between(column: str, parameters: dict[str, Any], segment: Segment) -> str:
    number = len(parameters)
    parameters[f"since_{number}"] = segment.since
    parameters[f"until_{number}"] = segment.until
    return f"{column} >= :since_{number} AND {column} < :until_{number}"
