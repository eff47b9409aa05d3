"""The numbers of a time range as subqueries: rollups inside it, the rows themselves at its ends.

However long the range, PostgreSQL reads a few hundred rollups of each model version and the rows
of less than two minutes. The numbers are exact for the range (docs/decisions/0011-rollups.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on

from analytics.rollups import BINS, ENTROPY, MeasureName
from analytics.shape import AnySelect, Ends, Shape
from analytics.tables import (
    WEIGHT_SUMS,
    failure_rollups,
    failures,
    feedback,
    label_rollups,
    model_versions,
    predictions,
    review_items,
    rollups,
)
from core.types import SENTIMENTS

HistogramKey = Literal["measure", "version", "revision", "cache_hit"]

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
        literal_column(BINS[measure].sql(measure), SmallInteger).label("bin"),
        func.count().label("predictions"),
    ).group_by(*_GROUP, "bin")


def counts(shape: Shape) -> Subquery:
    """Sums by version, revision, randomised, cache_hit and time, the start of a bucket or a minute.

    Its other columns are negative, neutral, positive, truncated, confidence_sum, latency_ms_sum and
    entropy_sum.
    """
    of_rows = _rows(predictions, _COUNTS_OF_ROWS)
    return _with_version(parts(shape, rollups, _ROLLED_UP_COUNTS, of_rows), shape)


def histograms(
    shape: Shape, *measures: MeasureName, by: Sequence[HistogramKey] = ("version",)
) -> AnySelect:
    """How many predictions each bin of `measures` (`rollups.BINS`) holds, for each value of `by`.

    Its columns are `by`, and two arrays of equal length, bins and counts. A revision has a row of
    its own even if `by` does not name it. For many small groups, `histogram_rows` is faster.
    """
    of_measures = [
        part
        for name in measures
        for part in parts(
            shape, rollups, _rolled_up_bins(name), _rows(predictions, _bins_of_rows(name))
        )
    ]
    binned = union_all(*of_measures).subquery("binned")
    # Grouped before the join, by the number of the model: by its names it takes twice as long.
    keys = [binned.c.model_version_id, *(binned.c[name] for name in by if name in binned.c)]
    added = (
        select(*keys, binned.c.bin, whole_sum(binned.c.predictions).label("predictions"))
        .where(*_of_randomised(binned, shape))
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
        .where(*_of_version(shape))
        .group_by(model_versions.c.id, *columns)
    )


def histogram_rows(shape: Shape, measure: MeasureName) -> Subquery:
    """The stored histograms of `measure`, one a row, with the keys that `counts` has.

    Its other columns are two arrays of equal length, bins and counts.
    """
    rolled_up = select(
        *_ROLLUP_KEYS,
        rollups.c[f"{measure}_bins"].label("bins"),
        rollups.c[f"{measure}_counts"].label("counts"),
    )

    def of_rows(ends: Ends) -> AnySelect:
        binned = _rows(predictions, _bins_of_rows(measure))(ends).subquery("binned")
        keys = [binned.c[name] for name in _GROUP]
        return select(
            *keys,
            func.array_agg(binned.c.bin).label("bins"),
            func.array_agg(binned.c.predictions).label("counts"),
        ).group_by(*keys)

    return _with_version(parts(shape, rollups, rolled_up, of_rows), shape)


def labels(shape: Shape) -> Subquery:
    """How many of the predictions with a true label are right; the latest label counts.

    Its columns are version, revision, time, confidence_bin and, of ordinary labels, labelled,
    correct and confidence_sum; of those that the review queue drew, sampled and `WEIGHT_SUMS`.
    """
    ordinary = ("labelled", "correct", "confidence_sum")
    columns = ("model_version_id", "confidence_bin", *ordinary, "sampled", *WEIGHT_SUMS)
    rolled_up = select(
        label_rollups.c.bucket.label("time"), *(label_rollups.c[name] for name in columns)
    )
    return _with_version(parts(shape, label_rollups, rolled_up, _labelled_rows), shape)


def _labelled_rows(ends: Ends) -> AnySelect:
    prediction_id = feedback.c.prediction_id
    latest = (
        select(prediction_id, feedback.c.label)
        .ext(distinct_on(prediction_id))
        .where(prediction_id >= ends.low, prediction_id < ends.high)
        .order_by(prediction_id, feedback.c.id.desc())
        .subquery("latest")
    )
    is_right = latest.c.label == predictions.c.sentiment
    is_ordinary = func.coalesce(review_items.c.labelled_before, literal_column("true"))
    weight = case((review_items.c.counts, literal_column("1.0") / review_items.c.probability))

    def zero_if_none(summed: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(summed, literal_column("0"))

    # Restricted by the rows' own ids too, so that PostgreSQL reads their day and not every one.
    return (
        select(
            _minute(predictions),
            predictions.c.model_version_id,
            literal_column(BINS["confidence"].sql("confidence")).label("confidence_bin"),
            func.count().filter(is_ordinary).label("labelled"),
            func.count().filter(is_right, is_ordinary).label("correct"),
            zero_if_none(
                func.sum(cast(predictions.c.confidence, Double)).filter(is_ordinary)
            ).label("confidence_sum"),
            func.count(weight).label("sampled"),
            zero_if_none(func.sum(weight)).label("weight"),
            zero_if_none(func.sum(weight).filter(is_right)).label("weight_correct"),
            zero_if_none(func.sum(weight * predictions.c.confidence)).label("weight_confidence"),
            zero_if_none(func.sum(weight * weight)).label("weight_squares"),
        )
        .join_from(latest, predictions, predictions.c.id == latest.c.prediction_id)
        .outerjoin(review_items, review_items.c.prediction_id == predictions.c.id)
        .where(*in_range(predictions, ends))
        .group_by("time", "model_version_id", "confidence_bin")
    )


def failed_texts(shape: Shape) -> Subquery:
    """Texts that were not answered, as `texts`, by version, revision and time."""
    rolled_up = select(
        failure_rollups.c.bucket.label("time"),
        failure_rollups.c.model_version_id,
        failure_rollups.c.texts,
    )
    of_rows = select(
        _minute(failures), failures.c.model_version_id, func.sum(failures.c.texts).label("texts")
    ).group_by("time", "model_version_id")
    of_shape = parts(shape, failure_rollups, rolled_up, _rows(failures, of_rows))
    return _with_version(of_shape, shape)


def rolled_up(shape: Shape, table: Table, *conditions: ColumnElement[bool]) -> Subquery:
    """The rows of a rollup table in a range that begins and ends with a minute."""

    chosen = select(table).where(*conditions)
    of_shape = [
        _of_buckets(table, chosen, size, Ends.of(number))
        for number, size in enumerate(shape.sizes)
        if size is not None
    ]
    return union_all(*of_shape).subquery()


def whole_sum(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """The sum of whole numbers, 0 of none; PostgreSQL's own sum of BIGINT is a NUMERIC."""
    summed = func.sum(column).filter(*conditions)
    return cast(func.coalesce(summed, literal_column("0")), BigInteger)


def sentiment_sums(facts: FromClause) -> list[Label[int]]:
    return [whole_sum(facts.c[sentiment]).label(sentiment) for sentiment in SENTIMENTS]


def all_sentiments(facts: FromClause) -> ColumnElement[int]:
    return facts.c.negative + facts.c.neutral + facts.c.positive


def in_range(table: Table, ends: Ends) -> Sequence[ColumnElement[bool]]:
    """The ids lead PostgreSQL to the rows; the times, which are finer, decide."""
    id_, created_at = table.c.id, table.c.created_at
    in_time = created_at >= ends.since, created_at < ends.until
    return id_ >= ends.low, id_ < ends.high, *in_time


def _rows(table: Table, chosen: AnySelect) -> Callable[[Ends], AnySelect]:
    return lambda ends: chosen.where(*in_range(table, ends))


def parts(
    shape: Shape, table: Table, rolled_up: AnySelect, of_rows: Callable[[Ends], AnySelect]
) -> list[AnySelect]:
    """A query for each segment: `rolled_up` of the rollups in `table`, or `of_rows`."""
    ends_of = [(size, Ends.of(number)) for number, size in enumerate(shape.sizes)]
    return [
        of_rows(ends) if size is None else _of_buckets(table, rolled_up, size, ends)
        for size, ends in ends_of
    ]


def _of_buckets(table: Table, rolled_up: AnySelect, size: timedelta, ends: Ends) -> AnySelect:
    # The size is no parameter: a plan that is made without it cannot estimate the rows.
    seconds: ColumnElement[int] = literal_column(str(int(size.total_seconds())))
    bucket = table.c.bucket
    return rolled_up.where(
        table.c.bucket_seconds == seconds, bucket >= ends.since, bucket < ends.until
    )


def _with_version(of_shape: Sequence[AnySelect], shape: Shape) -> Subquery:
    facts = union_all(*of_shape).subquery("facts")
    return (
        select(model_versions.c.version, model_versions.c.revision, *facts.c)
        .join_from(facts, model_versions, model_versions.c.id == facts.c.model_version_id)
        .where(*_of_version(shape), *_of_randomised(facts, shape))
        .subquery("scoped")
    )


def _of_version(shape: Shape) -> list[ColumnElement[bool]]:
    return [model_versions.c.version == bindparam("version")] if shape.has_version else []


def _of_randomised(facts: FromClause, shape: Shape) -> list[ColumnElement[bool]]:
    return [] if shape.randomised is None else [facts.c.randomised.is_(shape.randomised)]
