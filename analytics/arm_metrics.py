"""The metrics of both versions since a moment, for the weights that their runners hold now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

import anyio.to_thread
from sqlalchemy import bindparam, select

from analytics.ab.report import AbTest, ab_test
from analytics.latency import percentiles_ms
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.shape import AnySelect, Shape, per_shape
from analytics.subqueries import counts, failed_texts, histograms, sentiment_sums, whole_sum
from analytics.time_range import TimeRange
from core.types import SENTIMENTS, VERSIONS, Sentiment, Version
from stats.arm_metrics import ArmMetrics, RolloutMetrics
from stats.histogram import merged

# The metrics are read every few seconds: 1 in 5,000 comparisons may raise a false alarm.
FALSE_ALARMS = 0.0002


async def arm_metrics(
    reader: Reader,
    since: Mapping[Version, datetime],
    until: datetime,
    revisions: Mapping[Version, str],
) -> RolloutMetrics:
    """Each version has its own `since`. Raises `DatabaseUnavailable`."""
    found = await asyncio.gather(
        *(
            _arm(reader, Scope(TimeRange(min(since[version], until), until), version), revision)
            for version, revision in revisions.items()
        )
    )
    test = await ab_test(reader, None, until)
    arms = dict(zip(revisions, found, strict=True))
    compared, agreed, findings = _of_these_weights(test, revisions)
    psi, noise = await anyio.to_thread.run_sync(_sentiment_psi, arms)
    return RolloutMetrics(arms, psi, noise, compared, agreed, findings)


@per_shape
def _sentiments(shape: Shape) -> AnySelect:
    facts = counts(shape)
    return select(*sentiment_sums(facts)).where(facts.c.revision == bindparam("revision"))


@per_shape
def _failures(shape: Shape) -> AnySelect:
    facts = failed_texts(shape)
    texts = whole_sum(facts.c.texts).label("texts")
    return select(texts).where(facts.c.revision == bindparam("revision"))


@per_shape
def _latencies(shape: Shape) -> AnySelect:
    return histograms(shape, "latency_ms", by=("revision", "cache_hit"))


async def _arm(reader: Reader, scope: Scope, revision: str) -> ArmMetrics:
    sums, failures, latencies = await asyncio.gather(
        reader.select(_sentiments(scope, revision=revision)),
        reader.select(_failures(scope, revision=revision)),
        reader.histograms(_latencies(scope)),
    )
    sentiments: dict[Sentiment, int] = dict(zip(SENTIMENTS, sums[0], strict=True))
    computed = merged(
        bins
        for (of_revision, is_cached), bins in latencies.items()
        if of_revision == revision and not is_cached
    )
    return ArmMetrics(
        answered=sum(sentiments.values()),
        failed=failures[0].texts,
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
    paired, randomised = test.paired, test.randomised
    if paired and all(paired.models[name].revision == revisions[name] for name in VERSIONS):
        compared = paired.pairs
        agreed = sum(row.texts for row in paired.table if row.v1 == row.v2)
        findings.append(paired.verdict.finding)
    if randomised and all(
        randomised.arms[name].model.revision == revisions[name] for name in VERSIONS
    ):
        findings.append(randomised.verdict.finding)
    return compared, agreed, tuple(findings)


def _sentiment_psi(arms: Mapping[Version, ArmMetrics]) -> tuple[float | None, float | None]:
    # In a thread and only now: importing SciPy takes half a second.
    from stats.drift import drift_of_cells

    v1, v2 = ([arms[version].sentiments[name] for name in SENTIMENTS] for version in VERSIONS)
    drift = drift_of_cells(v1, v2, FALSE_ALARMS)
    return drift.psi, drift.psi_noise
