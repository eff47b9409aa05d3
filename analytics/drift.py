"""Whether the traffic has changed: a window beside the one that it is compared with."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Literal

import anyio.to_thread
from pydantic import BaseModel, Field

from analytics.facts import Scope, counts, histogram
from analytics.reader import Reader
from analytics.time_range import TimeRange
from analytics.window import Window, window
from values import SENTIMENTS, Sentiment

MEASURES = ("confidence", "text_characters", "token_count")


class FeatureDrift(BaseModel):
    reference_count: int
    current_count: int
    psi: float | None = Field(description="Population Stability Index; null if a window is empty")
    psi_noise: float | None = Field(
        description="what samples of these sizes pass in 1 % of comparisons without any drift"
    )
    js_divergence: float | None = Field(description="Jensen-Shannon divergence, 0 to 1 bits")
    verdict: Literal["too_few", "stable", "moderate", "significant"] = Field(
        description="by PSI: below 0.1 stable, from 0.2 significant"
    )


class DriftOfTraffic(Window):
    reference_since: datetime
    reference_until: datetime
    sentiment: FeatureDrift
    confidence: FeatureDrift
    text_characters: FeatureDrift
    token_count: FeatureDrift


async def drift(reader: Reader, scope: Scope, reference: TimeRange) -> DriftOfTraffic:
    """What the model says and what it is given in `scope`, against the same in `reference`."""
    current = await _profile(reader, scope)
    before = await _profile(reader, replace(scope, span=reference))
    report = await anyio.to_thread.run_sync(_report, before, current)
    return DriftOfTraffic(
        **window(scope), reference_since=reference.since, reference_until=reference.until, **report
    )


async def _profile(reader: Reader, scope: Scope) -> dict[str, dict[Any, int]]:
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SENTIMENTS)
    [said] = await reader.select(sums, counts(scope))
    profile: dict[str, dict[Any, int]] = {"sentiment": {name: said[name] for name in SENTIMENTS}}
    for measure in MEASURES:
        rows = await reader.select(
            "bin, sum(predictions)::bigint AS predictions",
            histogram(scope, measure),
            "GROUP BY bin",
        )
        profile[measure] = {row["bin"]: row["predictions"] for row in rows}
    return profile


def _report(
    before: dict[str, dict[Any, int]], current: dict[str, dict[Any, int]]
) -> dict[str, dict[str, Any]]:
    # In a thread and only now: importing SciPy takes half a second.
    from analytics.statistics.drift import Profile, drift_report

    def profile(of: dict[str, dict[Any, int]]) -> Profile:
        sentiment: dict[Sentiment, int] = of["sentiment"]
        return Profile(sentiment, *(of[measure] for measure in MEASURES))

    return asdict(drift_report(profile(before), profile(current)))
