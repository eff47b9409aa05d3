"""Percentiles of the latency, by version, separately for cached and computed answers."""

from __future__ import annotations

from datetime import timedelta
from itertools import zip_longest

from pydantic import Field
from sqlalchemy import func, select

from analytics.reader import Reader
from analytics.scope import Scope, Window
from analytics.shape import AnySelect, Ends, Query, Shape, per_shape
from analytics.subqueries import histograms, in_range
from analytics.tables import model_versions, predictions
from core.errors import invalid_field
from core.types import Version
from core.uuid7 import id_range
from stats.histogram import LATENCY_MS, Counts, quantiles
from stats.results import Result

MAX_EXACT = timedelta(hours=1)
PERCENTS = (50, 95, 99)


class LatencyPercentiles(Result):
    version: Version
    cache_hit: bool
    predictions: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Latency(Window):
    exact: bool
    percentiles: list[LatencyPercentiles] = Field(
        description="of the time inside the service; within 1 % unless `exact`"
    )


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    return histograms(shape, "latency_ms", by=("version", "cache_hit"))


async def latency(reader: Reader, scope: Scope) -> Latency:
    """Within 1 % of the exact percentiles, from the rollups' histograms (`stats.histogram`)."""
    counts = await reader.histograms(_histograms(scope))
    found = [
        LatencyPercentiles(
            version=version,
            cache_hit=cache_hit,
            predictions=sum(bins.values()),
            **percentiles_ms(bins),
        )
        for (version, cache_hit), bins in sorted(counts.items())
    ]
    return Latency(**scope.window, exact=False, percentiles=found)


def percentiles_ms(counts: Counts) -> dict[str, float | None]:
    """The fields p50_ms, p95_ms and p99_ms of a result; None without predictions."""
    found = quantiles(LATENCY_MS, counts, *(percent / 100 for percent in PERCENTS))
    by_percent = zip_longest(PERCENTS, found)
    return {f"p{percent}_ms": value for percent, value in by_percent}


async def exact_latency(reader: Reader, scope: Scope) -> Latency:
    """Computed from every prediction in `scope`.

    Raises:
        InvalidRequest: the range is longer than `MAX_EXACT`, so the rows may be too many.
    """
    since, until = scope.span.since, scope.span.until
    if until - since > MAX_EXACT:
        raise invalid_field("exact", "is for an hour at most; take a shorter range")
    key = model_versions.c.version, predictions.c.cache_hit
    statement = (
        select(
            *key,
            func.count().label("predictions"),
            *(
                func.percentile_disc(percent / 100)
                .within_group(predictions.c.latency_ms)
                .label(f"p{percent}_ms")
                for percent in PERCENTS
            ),
        )
        .join_from(
            predictions, model_versions, model_versions.c.id == predictions.c.model_version_id
        )
        .where(*in_range(predictions, Ends(since, until, *id_range(since, until))))
        .group_by(*key)
        .order_by(*key)
    )
    if scope.version is not None:
        statement = statement.where(model_versions.c.version == scope.version)
    rows = await reader.select(Query(statement))
    return Latency(**scope.window, exact=True, percentiles=rows)
