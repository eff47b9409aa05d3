"""The histograms of `arm_rollups`: texts that either version might have answered, by route.

A bin is of a group and an outcome, or of a group and a latency (stats/arm_metrics.py).
"""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    Integer,
    SmallInteger,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from analytics.rollups import BINS
from analytics.shape import AnySelect, Ends, Shape, per_shape
from analytics.subqueries import in_range, parts, whole_sum
from analytics.tables import arm_rollups, failures, model_versions, predictions
from core.types import SENTIMENTS, VERSIONS
from stats.arm_metrics import COMPARED_TOKENS, LATENCY_CELLS, LATENCY_OFFSET, OUTCOMES

_FAILED = OUTCOMES - 1
_OUTCOME = literal_column(
    f"arm_group * {OUTCOMES} + CASE sentiment "
    + " ".join(f"WHEN '{name}' THEN {place}" for place, name in enumerate(SENTIMENTS))
    + " END",
    Integer,
)
# `compared_latency_ms` as a PostgreSQL expression.
_COMPARED_LATENCY = (
    f"(latency_ms::double precision * {COMPARED_TOKENS} / greatest(token_count, {COMPARED_TOKENS}))"
)
LATENCY_BIN = BINS["latency_ms"].sql(_COMPARED_LATENCY)
_LATENCY = literal_column(
    f"arm_group * {LATENCY_CELLS} + {LATENCY_BIN} + {LATENCY_OFFSET}", Integer
)


def _rolled_up(measure: str) -> AnySelect:
    return select(
        arm_rollups.c.model_version_id,
        arm_rollups.c.endpoint,
        func.unnest(arm_rollups.c[f"{measure}_bins"]).label("bin"),
        func.unnest(arm_rollups.c[f"{measure}_counts"]).label("texts"),
    )


def _answered(ends: Ends) -> AnySelect:
    return _of_predictions(_OUTCOME).where(*in_range(predictions, ends))


def _computed(ends: Ends) -> AnySelect:
    return _of_predictions(_LATENCY).where(
        *in_range(predictions, ends), predictions.c.cache_hit.is_(False)
    )


def _of_predictions(number: ColumnElement[int]) -> AnySelect:
    return (
        select(
            predictions.c.model_version_id,
            cast(predictions.c.endpoint, Text).label("endpoint"),
            cast(number, SmallInteger).label("bin"),
            func.count().label("texts"),
        )
        .where(predictions.c.arm_group.is_not(None))
        .group_by(predictions.c.model_version_id, predictions.c.endpoint, "bin")
    )


def _failed(ends: Ends) -> AnySelect:
    number = literal_column(f"arm_group * {OUTCOMES} + {_FAILED}", Integer)
    return (
        select(
            failures.c.model_version_id,
            failures.c.endpoint,
            cast(number, SmallInteger).label("bin"),
            func.sum(failures.c.texts).label("texts"),
        )
        .where(*in_range(failures, ends), failures.c.arm_group.is_not(None))
        .group_by(failures.c.model_version_id, failures.c.endpoint, "bin")
    )


@per_shape
def outcomes(shape: Shape) -> AnySelect:
    """How many texts had each outcome: version, endpoint, bins and counts, of given revisions."""
    of_rows = [_failed(Ends.of(number)) for number, size in enumerate(shape.sizes) if size is None]
    return _of_revisions([*parts(shape, arm_rollups, _rolled_up("outcome"), _answered), *of_rows])


@per_shape
def latencies(shape: Shape) -> AnySelect:
    """As `outcomes`: how many answers that were computed took how long."""
    return _of_revisions(parts(shape, arm_rollups, _rolled_up("latency_ms"), _computed))


def _of_revisions(found: list[AnySelect]) -> AnySelect:
    binned = union_all(*found).subquery("binned")
    added = (
        select(
            model_versions.c.version,
            binned.c.endpoint,
            binned.c.bin,
            whole_sum(binned.c.texts).label("texts"),
        )
        .join_from(binned, model_versions, model_versions.c.id == binned.c.model_version_id)
        .where(
            or_(
                *(
                    and_(
                        model_versions.c.version == literal_column(f"'{version}'"),
                        model_versions.c.revision == bindparam(f"{version}_revision"),
                    )
                    for version in VERSIONS
                )
            )
        )
        .group_by(model_versions.c.version, binned.c.endpoint, binned.c.bin)
        .subquery("added")
    )
    return select(
        added.c.version,
        added.c.endpoint,
        func.array_agg(added.c.bin).label("bins"),
        func.array_agg(added.c.texts).label("counts"),
    ).group_by(added.c.version, added.c.endpoint)
