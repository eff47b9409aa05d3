"""The metrics of both versions under a rollout policy, which the guardrails compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.types import Sentiment, Version
from stats.histogram import LATENCY_MS, Counts


@dataclass(frozen=True, slots=True)
class ArmMetrics:
    """One version, for the weights that its runner holds now.

    `computed` counts the answers that did not come from the cache; `p95_ms` and `latencies` are
    those of the computed answers.
    """

    answered: int
    failed: int
    computed: int
    p95_ms: float | None
    sentiments: Mapping[Sentiment, int]
    latencies: Counts

    def slower_than(self, milliseconds: float) -> int:
        """Count the computed answers that took longer."""
        return sum(
            count
            for number, count in self.latencies.items()
            if LATENCY_MS.value_of(number) > milliseconds
        )


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """Both versions, the texts that both classified, and the findings of the A/B tests.

    `sentiment_psi` is the PSI of one version's sentiments against the other's, and
    `sentiment_psi_noise` the PSI that equal versions exceed by chance once in 5,000 comparisons of
    this size.
    """

    arms: Mapping[Version, ArmMetrics]
    sentiment_psi: float | None
    sentiment_psi_noise: float | None
    compared: int
    agreed: int
    findings: tuple[str, ...]
