"""The numbers of a time range as subqueries: rollups inside it, the rows themselves at its ends.

However long the range, PostgreSQL reads a few hundred rollups of each model version and the rows
of less than two minutes. The numbers are exact for the range (docs/decisions/0011-rollups.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Label,
    SmallInteger,
    Subquery,
    Table,
    cast,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on

from analytics.buckets import SMALLEST_FIRST, Segment, segments
from analytics.reader import AnySelect
from analytics.rollups import BINS, ENTROPY, MeasureName
from analytics.scope import Scope
from analytics.tables import (
    failure_rollups,
    failures,
    feedback,
    label_rollups,
    model_versions,
    predictions,
    rollups,
)
from analytics.time_range import TimeRange
from core.types import SENTIMENTS
from core.uuid7 import id_range

HistogramKey = Literal["measure", "version", "revision", "cache_hit"]

_DAY = SMALLEST_FIRST[-1]
_GROUP = ("time", "model_version_id", "randomised", "cache_hit")
_SUMS = (*SENTIMENTS, "truncated", "confidence_sum", "latency_ms_sum", "entropy_sum")


def _minute(table: Table) -> Label[Any]:
    return func.date_trunc(literal_column("'minute'"), table.c.created_at).label("time")


def _sum(expression: ColumnElement[Any]) -> ColumnElement[float]:
    """The sum in double precision: in REAL, the sum of many rows is off by 0.3 %."""
    return func.sum(cast(expression, Double))


_ROLLUP_KEYS = (
    rollups.c.bucket.label("time"),
    rollups.c.model_version_id,
    rollups.c.routed.label("randomised"),
    rollups.c.cache_hit,
)
_ROW_KEYS = (
    _minute(predictions),
    predictions.c.model_version_id,
    (predictions.c.endpoint == literal_column("'/predict/ab'")).label("randomised"),
    predictions.c.cache_hit,
)
_ROLLED_UP_COUNTS = select(*_ROLLUP_KEYS, *(rollups.c[name] for name in _SUMS))
_COUNTS_OF_ROWS = select(
    *_ROW_KEYS,
    *(
        func.count().filter(predictions.c.sentiment == literal_column(f"'{sentiment}'"))
        .label(sentiment)
        for sentiment in SENTIMENTS
    ),
    func.count().filter(predictions.c.truncated).label("truncated"),
    _sum(predictions.c.confidence).label("confidence_sum"),
    _sum(predictions.c.latency_ms).label("latency_ms_sum"),
    func.sum(literal_column(ENTROPY)).label("entropy_sum"),
).group_by(*_GROUP)  # fmt: skip


def _bin_of(measure: MeasureName) -> Label[Any]:
    return literal_column(BINS[measure].sql(measure), SmallInteger).label("bin")


def _rolled_up_bins(measure: MeasureName) -> AnySelect:
    # In the list of columns, unnest takes half as long as after FROM.
    return select(
        *_ROLLUP_KEYS,
        literal_column(f"'{measure}'").label("measure"),
        func.unnest(rollups.c[f"{measure}_bins"]).label("bin"),
        func.unnest(rollups.c[f"{measure}_counts"]).label("predictions"),
    )


def _bins_of_rows(measure: MeasureName) -> AnySelect:
    return select(
        *_ROW_KEYS,
        literal_column(f"'{measure}'").label("measure"),
        _bin_of(measure),
        func.count().label("predictions"),
    ).group_by(*_GROUP, "bin")


_ROLLED_UP_BINS: Mapping[MeasureName, AnySelect] = {name: _rolled_up_bins(name) for name in BINS}
_BINS_OF_ROWS: Mapping[MeasureName, AnySelect] = {name: _bins_of_rows(name) for name in BINS}


def counts(scope: Scope, largest_bucket: timedelta = _DAY) -> Subquery:
    """Sums by version, revision, randomised, cache_hit and time, the start of a bucket or a minute.

    Its other columns are negative, neutral, positive, truncated, confidence_sum, latency_ms_sum and
    entropy_sum. No bucket is larger than `largest_bucket`, so that larger ones can be added up.
    """
    parts = _parts(
        scope.span, rollups, _ROLLED_UP_COUNTS, _rows(predictions, _COUNTS_OF_ROWS), largest_bucket
    )
    return _with_version(parts, scope)


def histograms(
    scope: Scope, *measures: MeasureName, by: Sequence[HistogramKey] = ("version",)
) -> AnySelect:
    """How many predictions each bin of `measures` (`rollups.BINS`) holds, for each value of `by`.

    Its columns are `by`, and two arrays of equal length, bins and counts. A revision has a row of
    its own even if `by` does not name it. For many small groups, `histogram_rows` is faster.
    """
    parts = [
        part
        for name in measures
        for part in _parts(
            scope.span, rollups, _ROLLED_UP_BINS[name], _rows(predictions, _BINS_OF_ROWS[name])
        )
    ]
    binned = union_all(*parts).subquery("binned")
    # Grouped before the join, by the number of the model: by its names it takes twice as long.
    keys = [binned.c.model_version_id, *(binned.c[name] for name in by if name in binned.c)]
    added = (
        select(*keys, binned.c.bin, whole_sum(binned.c.predictions).label("predictions"))
        .where(*_of_randomised(binned, scope))
        .group_by(*keys, binned.c.bin)
        .subquery("added")
    )
    columns = [model_versions.c[name] if name in model_versions.c else added.c[name] for name in by]
    return (
        select(
            *columns,
            func.array_agg(added.c.bin).label("bins"),
            func.array_agg(added.c.predictions).label("counts"),
        )
        .join_from(added, model_versions, model_versions.c.id == added.c.model_version_id)
        .where(*_of_version(scope))
        .group_by(model_versions.c.id, *columns)
    )


def histogram_rows(
    scope: Scope, measure: MeasureName, largest_bucket: timedelta = _DAY
) -> Subquery:
    """The stored histograms of `measure`, one a row, with the keys that `counts` has.

    Its other columns are two arrays of equal length, bins and counts.
    """
    rolled_up = select(
        *_ROLLUP_KEYS,
        rollups.c[f"{measure}_bins"].label("bins"),
        rollups.c[f"{measure}_counts"].label("counts"),
    )

    def of_rows(segment: Segment) -> AnySelect:
        binned = _rows(predictions, _BINS_OF_ROWS[measure])(segment).subquery("binned")
        return select(
            *(binned.c[name] for name in _GROUP),
            func.array_agg(binned.c.bin).label("bins"),
            func.array_agg(binned.c.predictions).label("counts"),
        ).group_by(*(binned.c[name] for name in _GROUP))

    return _with_version(_parts(scope.span, rollups, rolled_up, of_rows, largest_bucket), scope)


def labels(scope: Scope) -> Subquery:
    """How many of the predictions with a true label are right; the latest label counts.

    Its columns are version, revision, time, confidence_bin, labelled, correct, confidence_sum.
    """
    columns = ("model_version_id", "confidence_bin", "labelled", "correct", "confidence_sum")
    rolled_up = select(
        label_rollups.c.bucket.label("time"), *(label_rollups.c[name] for name in columns)
    )
    return _with_version(_parts(scope.span, label_rollups, rolled_up, _labelled_rows), scope)


def _labelled_rows(segment: Segment) -> AnySelect:
    low, high = id_range(segment.since, segment.until)
    latest = (
        select(feedback.c.prediction_id, feedback.c.label)
        .ext(distinct_on(feedback.c.prediction_id))
        .where(feedback.c.prediction_id >= low, feedback.c.prediction_id < high)
        .order_by(feedback.c.prediction_id, feedback.c.id.desc())
        .subquery("latest")
    )
    # Restricted by the rows' own ids too, so that PostgreSQL reads their day and not every one.
    return (
        select(
            _minute(predictions),
            predictions.c.model_version_id,
            literal_column(BINS["confidence"].sql("confidence")).label("confidence_bin"),
            func.count().label("labelled"),
            func.count().filter(latest.c.label == predictions.c.sentiment).label("correct"),
            _sum(predictions.c.confidence).label("confidence_sum"),
        )
        .join_from(latest, predictions, predictions.c.id == latest.c.prediction_id)
        .where(*in_range(predictions, segment))
        .group_by("time", "model_version_id", "confidence_bin")
    )


def failed_texts(scope: Scope, largest_bucket: timedelta = _DAY) -> Subquery:
    """Texts that were not answered, as `texts`, by version, revision and time."""
    rolled_up = select(
        failure_rollups.c.bucket.label("time"),
        failure_rollups.c.model_version_id,
        failure_rollups.c.texts,
    )
    of_rows = select(
        _minute(failures), failures.c.model_version_id, func.sum(failures.c.texts).label("texts")
    ).group_by("time", "model_version_id")
    parts = _parts(scope.span, failure_rollups, rolled_up, _rows(failures, of_rows), largest_bucket)
    return _with_version(parts, scope)


def rolled_up(table: Table, span: TimeRange, *conditions: ColumnElement[bool]) -> Subquery:
    """The rows of a rollup table that cover `span`, which begins and ends with a minute."""
    chosen = select(table).where(*conditions)
    parts = [
        chosen.where(*_in_buckets(table, segment.size, segment))
        for segment in segments(span)
        if segment.size is not None
    ]
    return union_all(*parts).subquery("rolled_up")


def whole_sum(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """The sum of whole numbers, 0 of none; PostgreSQL's own sum of BIGINT is a NUMERIC."""
    summed = func.sum(column).filter(*conditions)
    return cast(func.coalesce(summed, literal_column("0")), BigInteger)


def sentiment_sums(facts: FromClause) -> list[Label[int]]:
    return [whole_sum(facts.c[sentiment]).label(sentiment) for sentiment in SENTIMENTS]


def all_sentiments(facts: FromClause) -> ColumnElement[int]:
    return facts.c.negative + facts.c.neutral + facts.c.positive


def in_range(table: Table, span: TimeRange | Segment) -> Sequence[ColumnElement[bool]]:
    """The ids lead PostgreSQL to the rows; the times, which are finer, decide."""
    low, high = id_range(span.since, span.until)
    id_, created_at = table.c.id, table.c.created_at
    return id_ >= low, id_ < high, created_at >= span.since, created_at < span.until


def _rows(table: Table, chosen: AnySelect) -> Callable[[Segment], AnySelect]:
    return lambda segment: chosen.where(*in_range(table, segment))


def _parts(
    span: TimeRange,
    table: Table,
    rolled_up: AnySelect,
    of_rows: Callable[[Segment], AnySelect],
    largest_bucket: timedelta = _DAY,
) -> list[AnySelect]:
    """A query for each segment of `span`: `rolled_up` of rollups in `table`, or `of_rows`."""
    # An empty range, which no segment covers, is a query that finds nothing.
    covering = segments(span, largest_bucket) or [Segment(span.since, span.until, None)]
    return [
        of_rows(segment)
        if segment.size is None
        else rolled_up.where(*_in_buckets(table, segment.size, segment))
        for segment in covering
    ]


def _in_buckets(table: Table, size: timedelta, span: Segment) -> Sequence[ColumnElement[bool]]:
    # The size is no parameter: a plan that is made without it cannot estimate the rows.
    seconds: ColumnElement[int] = literal_column(str(int(size.total_seconds())))
    bucket = table.c.bucket
    return table.c.bucket_seconds == seconds, bucket >= span.since, bucket < span.until


def _with_version(parts: Sequence[AnySelect], scope: Scope) -> Subquery:
    facts = union_all(*parts).subquery("facts")
    return (
        select(model_versions.c.version, model_versions.c.revision, *facts.c)
        .join_from(facts, model_versions, model_versions.c.id == facts.c.model_version_id)
        .where(*_of_version(scope), *_of_randomised(facts, scope))
        .subquery("scoped")
    )


def _of_version(scope: Scope) -> list[ColumnElement[bool]]:
    return [] if scope.version is None else [model_versions.c.version == scope.version]


def _of_randomised(facts: FromClause, scope: Scope) -> list[ColumnElement[bool]]:
    return [] if scope.randomised is None else [facts.c.randomised.is_(scope.randomised)]
