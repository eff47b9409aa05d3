"""Percentiles of the latency, by version, separately for cached and computed answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import func, select

from analytics.reader import AnyRow, Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Ends, Query, Shape, per_shape
from analytics.subqueries import histograms, in_range
from analytics.tables import model_versions, predictions
from core.errors import invalid_field
from core.types import Version
from core.uuid7 import id_range
from stats.histogram import LATENCY_MS, Counts, percentiles

MAX_EXACT = timedelta(hours=1)


class LatencyPercentiles(NamedTuple):
    version: Version
    cache_hit: bool
    predictions: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@per_shape
def _histograms(shape: Shape) -> AnySelect:
    return histograms(shape, "latency_ms", by=("version", "cache_hit"))


async def latency(reader: Reader, scope: Scope) -> list[LatencyPercentiles]:
    """Within 1 % of the exact percentiles, from the rollups' histograms (`stats.histogram`)."""
    counts = await reader.histograms(_histograms(scope))
    return [
        LatencyPercentiles(version, cache_hit, sum(bins.values()), **percentiles_ms(bins))
        for (version, cache_hit), bins in sorted(counts.items())
    ]


def percentiles_ms(counts: Counts) -> dict[str, float | None]:
    """As the fields of a result; None without predictions."""
    found = percentiles(LATENCY_MS, counts)
    if found is None:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    return {"p50_ms": found.p50, "p95_ms": found.p95, "p99_ms": found.p99}


async def exact_latency(reader: Reader, scope: Scope) -> Sequence[AnyRow]:
    """Rows with the fields of `LatencyPercentiles`, from every prediction in `scope`.

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
                for percent in (50, 95, 99)
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
    return await reader.select(Query(statement))
