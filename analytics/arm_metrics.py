"""What both versions did since a moment, with the weights that they hold now, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import anyio.to_thread

from analytics.ab.report import AbTest, ab_test
from analytics.latency import percentiles_ms
from analytics.reader import Reader
from analytics.sql_fragment import Scope, counts, failures, histogram
from analytics.time_range import TimeRange
from core.types import SENTIMENTS, VERSIONS, Sentiment, Version
from stats.histogram import LATENCY_MS, Counts, merged

# It is looked at every few seconds: 1 in 5,000 looks may be wrong.
FALSE_ALARMS = 0.0002


@dataclass(frozen=True, slots=True)
class ArmEvidence:
    """Of one version: texts answered and not, and the latency of what was computed."""

    answered: int
    failed: int
    computed: int
    p95_ms: float | None
    sentiments: Mapping[Sentiment, int]
    latencies: Counts

    def slower_than(self, milliseconds: float) -> int:
        """Of the computed answers."""
        return sum(
            count
            for number, count in self.latencies.items()
            if LATENCY_MS.value_of(number) > milliseconds
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of both, and of the texts that both were asked about."""

    arms: Mapping[Version, ArmEvidence]
    sentiment_psi: float | None
    sentiment_psi_noise: float | None
    compared: int
    agreed: int
    findings: tuple[str, ...]


async def evidence(
    reader: Reader,
    since: Mapping[Version, datetime],
    until: datetime,
    revisions: Mapping[Version, str],
) -> Evidence:
    """Since a moment of its own for each version. Raises `DatabaseUnavailable`."""
    arms = await asyncio.gather(
        *(
            _arm(reader, Scope(TimeRange(min(since[version], until), until), version), revision)
            for version, revision in revisions.items()
        )
    )
    of = dict(zip(revisions, arms, strict=True))
    test = await ab_test(reader, None, until)
    compared, agreed, findings = _of_these_weights(test, revisions)
    psi, noise = await anyio.to_thread.run_sync(_sentiment_psi, of)
    return Evidence(of, psi, noise, compared, agreed, findings)


async def _arm(reader: Reader, scope: Scope, revision: str) -> ArmEvidence:
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SENTIMENTS)
    said, unanswered, latencies = await asyncio.gather(
        reader.select(f"revision, {sums}", counts(scope), "GROUP BY revision"),
        reader.select(
            "revision, sum(texts)::bigint AS texts", failures(scope), "GROUP BY revision"
        ),
        reader.histograms(histogram(scope, "latency_ms", by=("revision", "cache_hit"))),
    )
    sentiments: dict[Sentiment, int] = dict.fromkeys(SENTIMENTS, 0)
    for row in said:
        if row["revision"] == revision:
            sentiments = {sentiment: row[sentiment] for sentiment in SENTIMENTS}
    computed = merged(
        bins for (of, cached), bins in latencies.items() if of == revision and not cached
    )
    return ArmEvidence(
        answered=sum(sentiments.values()),
        failed=sum(row["texts"] for row in unanswered if row["revision"] == revision),
        computed=sum(computed.values()),
        p95_ms=percentiles_ms(computed)["p95_ms"],
        sentiments=sentiments,
        latencies=computed,
    )


def _of_these_weights(
    test: AbTest, revisions: Mapping[Version, str]
) -> tuple[int, int, tuple[str, ...]]:
    """Texts compared, those on which both agreed, and what the A/B tests found."""
    compared = agreed = 0
    findings = []
    paired, routed = test.paired, test.routed
    if paired and all(paired.models[one].revision == revisions[one] for one in VERSIONS):
        compared = paired.pairs
        agreed = sum(pair.texts for pair in paired.table if pair.v1 == pair.v2)
        findings.append(paired.verdict.finding)
    if routed and all(routed.arms[one].model.revision == revisions[one] for one in VERSIONS):
        findings.append(routed.verdict.finding)
    return compared, agreed, tuple(findings)


def _sentiment_psi(arms: Mapping[Version, ArmEvidence]) -> tuple[float | None, float | None]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.drift import drift_of_cells

    v1, v2 = ([arms[version].sentiments[one] for one in SENTIMENTS] for version in VERSIONS)
    told = drift_of_cells(v1, v2, FALSE_ALARMS)
    return told.psi, told.psi_noise
