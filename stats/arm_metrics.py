"""The evidence about both versions under a rollout policy, which the guardrails compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from core.types import ARM_GROUPS, SENTIMENTS, Endpoint, Version
from stats.histogram import LATENCY_MS, Counts, merged

# The bins of `arm_rollups`: of each group its outcomes, the sentiments and a failure; and of each
# group its bins of LATENCY_MS, of which there are 986 from -230 on.
OUTCOMES = len(SENTIMENTS) + 1
LATENCY_CELLS = 1_000
# The latency of a longer text counts by so many of its tokens: that one version gets longer texts
# than the other says nothing of the models, and a client can arrange it.
COMPARED_TOKENS = 32
LATENCY_OFFSET = 1 - LATENCY_MS.bin_of(LATENCY_MS.smallest)


class Stratum(NamedTuple):
    """Endpoints where each text might have been answered by either version, by equal chances."""

    champion: tuple[Endpoint, ...]
    challenger: tuple[Endpoint, ...]


class EvidenceQuery(NamedTuple):
    """What to read: both versions in the same windows, since a step began and since lately."""

    strata: tuple[Stratum, ...]
    since: datetime
    until: datetime  # the step's last look
    lately: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One version's texts of a stratum and window, in the bins of `arm_rollups`.

    `latencies` are those of the answers that did not come from the cache, each by
    `compared_latency_ms`.
    """

    outcomes: Counts
    latencies: Counts

    def __add__(self, other: ArmCounts) -> ArmCounts:
        return ArmCounts(
            merged([self.outcomes, other.outcomes]), merged([self.latencies, other.latencies])
        )

    @property
    def failed(self) -> int:
        return sum(n for number, n in self.outcomes.items() if number % OUTCOMES == OUTCOMES - 1)

    @property
    def texts(self) -> int:
        """Answered and failed."""
        return sum(self.outcomes.values())

    @property
    def computed(self) -> int:
        return sum(self.latencies.values())

    def outcome_table(self) -> list[list[int]]:
        """Counts by group and outcome."""
        return _table(self.outcomes, OUTCOMES)

    def latency_table(self) -> list[list[int]]:
        """Counts by group and place of a bin; see `LATENCY_VALUES`."""
        return _table(self.latencies, LATENCY_CELLS)


LATENCY_VALUES = [LATENCY_MS.value_of(place - LATENCY_OFFSET) for place in range(LATENCY_CELLS)]
NOTHING = ArmCounts({}, {})


def compared_latency_ms(latency_ms: float, token_count: int) -> float:
    """The latency of an answer, or of `COMPARED_TOKENS` of a longer text."""
    return latency_ms * COMPARED_TOKENS / max(token_count, COMPARED_TOKENS)


def _table(counts: Counts, cells: int) -> list[list[int]]:
    table = [[0] * cells for _ in range(ARM_GROUPS)]
    for number, count in counts.items():
        table[number // cells][number % cells] = count
    return table


@dataclass(frozen=True, slots=True)
class StratumCounts:
    """Both versions in a stratum: since the step began, and lately."""

    step: Mapping[Version, ArmCounts]
    lately: Mapping[Version, ArmCounts]


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """The strata, the texts of shadow traffic, and the findings of the A/B tests."""

    strata: tuple[StratumCounts, ...]
    compared: int
    agreed: int
    findings: tuple[str, ...]
