"""What guardrails judge by: what both versions did while a policy was in force."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from core.types import Version


class ArmEvidence(Protocol):
    """Of one version, with the weights that it holds now."""

    @property
    def answered(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def computed(self) -> int:
        """Answered, and not from the cache."""

    @property
    def p95_ms(self) -> float | None:
        """Of what was computed."""

    def slower_than(self, milliseconds: float) -> int:
        """Computed answers that took longer."""


class Evidence(Protocol):
    @property
    def arms(self) -> Mapping[Version, ArmEvidence]: ...

    @property
    def sentiment_psi(self) -> float | None:
        """Of the sentiments of one version against those of the other."""

    @property
    def sentiment_psi_noise(self) -> float | None:
        """What samples of these sizes pass once in 5,000 comparisons without any difference."""

    @property
    def compared(self) -> int:
        """Texts that both were asked about."""

    @property
    def agreed(self) -> int: ...

    @property
    def findings(self) -> Collection[str]:
        """Of the A/B tests of these weights."""


class EvidenceSource(Protocol):
    async def __call__(
        self, since: Mapping[Version, datetime], until: datetime, revisions: Mapping[Version, str]
    ) -> Evidence: ...
