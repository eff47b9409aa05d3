"""How long answers took: percentiles by version, apart for cached ones and computed ones."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from analytics.reader import Reader
from analytics.sql_fragment import Scope, histogram, predictions
from analytics.window import Window, window
from core.errors import invalid_field
from core.types import Version
from stats.histogram import LATENCY_MS, Counts, percentiles

MAX_EXACT = timedelta(hours=1)


class LatencyPercentiles(BaseModel):
    version: Version
    cache_hit: bool
    predictions: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Latency(Window):
    exact: bool
    percentiles: list[LatencyPercentiles] = Field(
        description="of what a request took inside the service; within 1 % unless they are exact"
    )


async def latency(reader: Reader, scope: Scope) -> Latency:
    """Merged from the rollups' histograms; see `stats.histogram`."""
    counts = await reader.histograms(histogram(scope, "latency_ms", by=("version", "cache_hit")))
    found = [
        LatencyPercentiles.model_validate(
            {"version": version, "cache_hit": cache_hit, "predictions": sum(bins.values())}
            | percentiles_ms(bins)
        )
        for (version, cache_hit), bins in sorted(counts.items())
    ]
    return Latency(**window(scope), exact=False, percentiles=found)


def percentiles_ms(counts: Counts) -> dict[str, float | None]:
    """As the fields of a reply; null without predictions."""
    told = percentiles(LATENCY_MS, counts)
    if told is None:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    return {"p50_ms": told.p50, "p95_ms": told.p95, "p99_ms": told.p99}


async def exact_latency(reader: Reader, scope: Scope) -> Latency:
    """Of every prediction in `scope`.

    Raises:
        InvalidRequest: it is longer than `MAX_EXACT`, and the rows may be too many.
    """
    if scope.span.until - scope.span.since > MAX_EXACT:
        raise invalid_field("exact", "is for an hour at most; take a shorter range")
    percentile = "percentile_disc({}) WITHIN GROUP (ORDER BY latency_ms)"
    rows = await reader.select(
        "version, cache_hit, count(*) AS predictions, "
        f"{percentile.format(0.5)} AS p50_ms, {percentile.format(0.95)} AS p95_ms, "
        f"{percentile.format(0.99)} AS p99_ms",
        predictions(scope),
        "GROUP BY version, cache_hit ORDER BY version, cache_hit",
    )
    found = [LatencyPercentiles.model_validate(dict(row)) for row in rows]
    return Latency(**window(scope), exact=True, percentiles=found)
