"""How long answers took: percentiles by version, apart for cached ones and computed ones."""

from __future__ import annotations

from collections import defaultdict

from pydantic import BaseModel, Field

from analytics.facts import Scope, histogram
from analytics.reader import Reader
from analytics.statistics.histogram import LATENCY_MS, percentiles
from analytics.window import Window, window
from values import Version


class LatencyPercentiles(BaseModel):
    version: Version
    cache_hit: bool
    predictions: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Latency(Window):
    percentiles: list[LatencyPercentiles] = Field(
        description="of what a request took inside the service; within 1 % of the exact ones"
    )


async def latency(reader: Reader, scope: Scope) -> Latency:
    """Merged from the rollups' histograms; see `analytics.statistics.histogram`."""
    rows = await reader.select(
        "version, cache_hit, bin, sum(predictions)::bigint AS predictions",
        histogram(scope, "latency_ms"),
        "GROUP BY version, cache_hit, bin",
    )
    counts: dict[tuple[Version, bool], dict[int, int]] = defaultdict(dict)
    for row in rows:
        counts[row["version"], row["cache_hit"]][row["bin"]] = row["predictions"]
    found = []
    for (version, cache_hit), bins in sorted(counts.items()):
        told = percentiles(LATENCY_MS, bins)
        if told is not None:
            found.append(
                LatencyPercentiles(
                    version=version,
                    cache_hit=cache_hit,
                    predictions=sum(bins.values()),
                    p50_ms=told.p50,
                    p95_ms=told.p95,
                    p99_ms=told.p99,
                )
            )
    return Latency(**window(scope), percentiles=found)
