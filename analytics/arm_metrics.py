"""The evidence of the guardrails, for the weights that the runners of both versions hold now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from analytics.ab.report import AbTest, ab_test
from analytics.agreement import shadow_agreement
from analytics.arms import latencies, outcomes
from analytics.reader import Histograms, Reader
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core.types import VERSIONS, Endpoint, Version
from stats.arm_metrics import (
    NOTHING,
    ArmCounts,
    EvidenceQuery,
    RolloutMetrics,
    Stratum,
    StratumCounts,
)

Arms = Mapping[tuple[Version, Endpoint], ArmCounts]


async def arm_metrics(
    reader: Reader, query: EvidenceQuery, champion: Version, revisions: Mapping[Version, str]
) -> RolloutMetrics:
    """Read both versions in the same windows. Raises `DatabaseUnavailable`."""
    spans = TimeRange(query.since, query.until), TimeRange(query.lately, query.now)
    step, lately = await asyncio.gather(*(_arms(reader, span, revisions) for span in spans))
    compared, agreed = await shadow_agreement(reader, spans[0], revisions)
    findings = _of_these_weights(await ab_test(reader, None, query.now), revisions)
    strata = tuple(
        StratumCounts(_of_stratum(step, of, champion), _of_stratum(lately, of, champion))
        for of in query.strata
    )
    return RolloutMetrics(strata, compared, agreed, findings)


async def _arms(reader: Reader, span: TimeRange, revisions: Mapping[Version, str]) -> Arms:
    parameters = {f"{version}_revision": revisions[version] for version in VERSIONS}
    of_outcomes: Histograms
    of_outcomes, of_latencies = await asyncio.gather(
        reader.histograms(outcomes(Scope(span), **parameters)),
        reader.histograms(latencies(Scope(span), **parameters)),
    )
    return {
        (version, endpoint): ArmCounts(counts, of_latencies.get((version, endpoint), {}))
        for (version, endpoint), counts in of_outcomes.items()
    }


def _of_stratum(arms: Arms, stratum: Stratum, champion: Version) -> dict[Version, ArmCounts]:
    return {
        version: sum(
            (
                arms.get((version, endpoint), NOTHING)
                for endpoint in (stratum.champion if version == champion else stratum.challenger)
            ),
            NOTHING,
        )
        for version in VERSIONS
    }


def _of_these_weights(test: AbTest, revisions: Mapping[Version, str]) -> tuple[str, ...]:
    """What the A/B tests found."""
    findings = []
    paired, randomised = test.paired, test.randomised
    if paired and all(paired.models[name].revision == revisions[name] for name in VERSIONS):
        findings.append(paired.verdict.finding)
    if randomised and all(
        randomised.arms[name].model.revision == revisions[name] for name in VERSIONS
    ):
        findings.append(randomised.verdict.finding)
    return tuple(findings)
