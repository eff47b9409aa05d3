"""The numbers of a time range as SQL: rollups where they cover it, the rows themselves at its ends.

However long the range, it reads a few hundred rollups of each model version, and the rows of less
than two minutes; and the numbers are those of exactly the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from analytics.buckets import segments
from analytics.rollups import BINS, COUNTS, ENTROPY, ROUTED, MeasureName
from analytics.time_range import TimeRange
from core.types import SENTIMENTS, Version
from core.uuid7 import id_range

HistogramKey = Literal["measure", "version", "revision", "cache_hit"]

_KEYS = "model_version_id, routed, cache_hit"
_KEYS_OF_ROW = f"model_version_id, {ROUTED}, cache_hit"
_MINUTE = "date_trunc('minute', created_at)"


@dataclass(frozen=True, slots=True)
class SqlFragment:
    """A query in parentheses, to be selected from, and its parameters."""

    sql: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about; by default every version, and all endpoints.

    `routed` asks of /predict/ab alone.
    """

    span: TimeRange
    version: Version | None = None
    routed: bool | None = None


def counts(scope: Scope, largest_bucket: timedelta | None = None) -> SqlFragment:
    """Sums by version, revision, routed, cache_hit and time, the start of a bucket or a minute.

    Columns: those, and negative, neutral, positive, truncated, confidence_sum, latency_ms_sum,
    entropy_sum. Buckets are of at most `largest_bucket`, so that the sums of longer ones can be
    made of them.
    """
    columns = f"{', '.join(SENTIMENTS)}, truncated, confidence_sum, latency_ms_sum, entropy_sum"
    return _facts(
        scope,
        largest_bucket,
        f"SELECT bucket AS time, {_KEYS}, {columns} FROM rollups WHERE",
        f"SELECT {_MINUTE} AS time, {_KEYS_OF_ROW}, "
        f"{COUNTS}, count(*) FILTER (WHERE truncated) AS truncated, "
        "sum(confidence::double precision) AS confidence_sum, "
        f"sum(latency_ms::double precision) AS latency_ms_sum, sum({ENTROPY}) AS entropy_sum "
        "FROM predictions WHERE {ids} AND {times} GROUP BY 1, 2, 3, 4",
    )


def histogram(
    scope: Scope, *measures: MeasureName, by: Sequence[HistogramKey] = ("version",)
) -> SqlFragment:
    """How many predictions each bin of `measures` (`rollups.BINS`) holds, by `by`.

    Columns: `by`, and arrays of equal length, bins and counts; a row for each revision, also
    where it is not by those. For few groups of much; else `histogram_rows` is faster.
    """
    unions = [_union(scope.span, None, *_bins_of(name)) for name in measures]
    union = SqlFragment(" UNION ALL ".join(each.sql for each in unions), unions[0].parameters)
    conditions = _conditions(scope, union.parameters)
    # Grouped before the join, by the number of the model: by its names it takes twice as long.
    number = "model_version_id"
    inner = {"version": number, "revision": number}
    columns = list(dict.fromkeys([number, *(inner.get(key, key) for key in by)]))
    groups = ", ".join(str(position + 1) for position in range(len(columns)))
    return SqlFragment(
        f"(SELECT {', '.join(by)}, array_agg(bin) AS bins, array_agg(predictions) AS counts FROM ("
        f"SELECT {', '.join(columns)}, bin, sum(predictions)::bigint AS predictions "
        f"FROM ({union.sql}) AS f {_where(conditions, 'f.')} GROUP BY {groups}, bin"
        f") AS added JOIN model_versions AS m ON m.id = {number} {_where(conditions, 'm.')} "
        f"GROUP BY m.id, {', '.join(by)})",
        union.parameters,
    )


def histogram_rows(
    scope: Scope, measure: MeasureName, largest_bucket: timedelta | None = None
) -> SqlFragment:
    """The histograms of `measure` as they are kept, a row each; else as `counts`.

    Columns: as `counts` has them, and arrays of equal length, bins and counts.
    """
    _, raw = _bins_of(measure)
    return _facts(
        scope,
        largest_bucket,
        f"SELECT bucket AS time, {_KEYS}, {measure}_bins AS bins, {measure}_counts AS counts "
        "FROM rollups WHERE",
        f"SELECT time, {_KEYS}, array_agg(bin) AS bins, array_agg(predictions) AS counts "
        f"FROM ({raw}) AS binned GROUP BY 1, 2, 3, 4",
    )


def _bins_of(measure: MeasureName) -> tuple[str, str]:
    # In the list of columns, unnest takes half as long as after FROM.
    rolled = (
        f"SELECT bucket AS time, {_KEYS}, '{measure}' AS measure, unnest({measure}_bins) AS bin, "
        f"unnest({measure}_counts) AS predictions FROM rollups WHERE"
    )
    raw = (
        f"SELECT {_MINUTE} AS time, {_KEYS_OF_ROW}, '{measure}' AS measure, "
        f"{BINS[measure].sql(measure)} AS bin, "
        "count(*) AS predictions FROM predictions WHERE {ids} AND {times} GROUP BY 1, 2, 3, 4, 6"
    )
    return rolled, raw


def labels(scope: Scope) -> SqlFragment:
    """Of the predictions that have a true label, the latest of which counts: how many are right.

    Columns: version, revision, time, confidence_bin, labelled, correct, confidence_sum.
    """
    latest = (
        "SELECT DISTINCT ON (prediction_id) prediction_id AS id, label FROM feedback "
        "WHERE {ids_of_feedback} ORDER BY prediction_id, feedback.id DESC"
    )
    return _facts(
        scope,
        None,
        "SELECT bucket AS time, model_version_id, confidence_bin, labelled, correct, "
        "confidence_sum FROM label_rollups WHERE",
        f"SELECT {_MINUTE} AS time, model_version_id, {BINS['confidence'].sql('confidence')} "
        "AS confidence_bin, count(*) AS labelled, "
        "count(*) FILTER (WHERE label = sentiment) AS correct, "
        "sum(confidence::double precision) AS confidence_sum "
        f"FROM ({latest}) AS latest JOIN predictions AS p ON p.id = latest.id "
        # Of the rows' own ids, so that PostgreSQL looks into their day and not into every one.
        "WHERE {ids_of_predictions} AND {times} GROUP BY 1, 2, 3",
    )


def failures(scope: Scope, largest_bucket: timedelta | None = None) -> SqlFragment:
    """Texts that were not answered, as `texts`, by version, revision and time."""
    return _facts(
        scope,
        largest_bucket,
        "SELECT bucket AS time, model_version_id, texts FROM failure_rollups WHERE",
        f"SELECT {_MINUTE} AS time, model_version_id, sum(texts) AS texts "
        "FROM failures WHERE {ids} AND {times} GROUP BY 1, 2",
    )


def predictions(scope: Scope) -> SqlFragment:
    """The rows themselves, with version and revision; for short ranges."""
    low, high = id_range(scope.span.since, scope.span.until)
    parameters: dict[str, Any] = {
        "low": low, "high": high, "since": scope.span.since, "until": scope.span.until,
    }  # fmt: skip
    conditions = [
        "f.id >= :low AND f.id < :high AND f.created_at >= :since AND f.created_at < :until",
        *_conditions(scope, parameters),
    ]
    return SqlFragment(
        f"(SELECT m.version, m.revision, f.* FROM (SELECT *, {ROUTED} FROM predictions) AS f "
        f"JOIN model_versions AS m ON m.id = f.model_version_id WHERE {' AND '.join(conditions)})",
        parameters,
    )


def rolled_up(
    table: str, span: TimeRange, condition: str, parameters: dict[str, Any]
) -> SqlFragment:
    """The rows of a rollup table that cover `span`, which begins and ends with a minute."""
    union = _union(span, None, f"SELECT * FROM {table} WHERE {condition} AND", raw="")
    return SqlFragment(f"({union.sql})", union.parameters | parameters)


def _facts(scope: Scope, largest_bucket: timedelta | None, rolled: str, raw: str) -> SqlFragment:
    union = _union(scope.span, largest_bucket, rolled, raw)
    conditions = _conditions(scope, union.parameters)
    return SqlFragment(
        f"(SELECT m.version, m.revision, f.* FROM ({union.sql}) AS f "
        f"JOIN model_versions AS m ON m.id = f.model_version_id {_where(conditions)})",
        union.parameters,
    )


def _union(span: TimeRange, largest_bucket: timedelta | None, rolled: str, raw: str) -> SqlFragment:
    """Of each segment of `span`: `rolled` up to its WHERE, or `raw` with places for conditions."""
    covering = segments(span, largest_bucket) if largest_bucket else segments(span)
    parameters: dict[str, Any] = {}
    parts = []
    for number, segment in enumerate(covering):
        since, until = f":since_{number}", f":until_{number}"
        parameters |= {since[1:]: segment.since, until[1:]: segment.until}
        if segment.size is None:
            # The ids lead PostgreSQL to the rows, the times are what was asked for.
            low, high = f":low_{number}", f":high_{number}"
            parameters[low[1:]], parameters[high[1:]] = id_range(segment.since, segment.until)
            places = {
                "ids": f"id >= {low} AND id < {high}",
                "ids_of_predictions": f"p.id >= {low} AND p.id < {high}",
                "ids_of_feedback": f"prediction_id >= {low} AND prediction_id < {high}",
                "times": f"created_at >= {since} AND created_at < {until}",
            }
            parts.append(raw.format_map(places))
        else:
            seconds = int(segment.size.total_seconds())
            parts.append(
                f"{rolled} bucket_seconds = {seconds} AND bucket >= {since} AND bucket < {until}"
            )
    return SqlFragment(" UNION ALL ".join(parts), parameters)


def _where(conditions: Sequence[str], of: str = "") -> str:
    """Those of the table that is called `of`."""
    chosen = [condition for condition in conditions if condition.startswith(of)]
    return f"WHERE {' AND '.join(chosen)}" if chosen else ""


def _conditions(scope: Scope, parameters: dict[str, Any]) -> Sequence[str]:
    asked = {"m.version": scope.version, "f.routed": scope.routed}
    conditions = []
    for column, value in asked.items():
        if value is not None:
            name = column.replace(".", "_")
            parameters[name] = value
            conditions.append(f"{column} = :{name}")
    return conditions
