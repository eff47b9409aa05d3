"""The metrics of both versions under the active policy, as the guardrails need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from core.types import Version


class ArmMetrics(Protocol):
    """The metrics of one version, for the weights that its runner holds now."""

    @property
    def answered(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def computed(self) -> int:
        """Answers that did not come from the cache."""

    @property
    def p95_ms(self) -> float | None:
        """The 95th percentile latency of the computed answers."""

    def slower_than(self, milliseconds: float) -> int:
        """Count the computed answers that took longer."""


class RolloutMetrics(Protocol):
    @property
    def arms(self) -> Mapping[Version, ArmMetrics]: ...

    @property
    def sentiment_psi(self) -> float | None:
        """PSI of one version's sentiments against the other's."""

    @property
    def sentiment_psi_noise(self) -> float | None:
        """The PSI that equal versions exceed by chance once in 5,000 comparisons of this size."""

    @property
    def compared(self) -> int:
        """Texts that both versions classified."""

    @property
    def agreed(self) -> int: ...

    @property
    def findings(self) -> Collection[str]:
        """The findings of the A/B tests with these weights."""


class MetricsSource(Protocol):
    async def __call__(
        self, since: Mapping[Version, datetime], until: datetime, revisions: Mapping[Version, str]
    ) -> RolloutMetrics: ...
