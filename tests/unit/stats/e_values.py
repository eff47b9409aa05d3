"""Random outcomes, and runs with many looks, for the tests of e-values."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.arms import ArmsEvidence
from stats.outcomes import ArmOutcomes, PairedOutcomes
from stats.sequential import log_threshold

LIMIT = log_threshold(0.05)
BATCHES, BATCH, PEEKS = 6, 50, 10_000
RUNS = BATCHES * BATCH
COUNTS = st.integers(0, 10**9)
FEW = st.integers(0, 500)
PAIRS = st.builds(PairedOutcomes, FEW, FEW, FEW, FEW)
ARMS = st.builds(lambda right, wrong: ArmOutcomes(right + wrong, right), FEW, FEW)

Draws = NDArray[np.bool_]


def log_e_of(v1: ArmOutcomes, v2: ArmOutcomes, label_share: float | None) -> float:
    return ArmsEvidence((v1.right, v1.wrong), (v2.right, v2.wrong), label_share).log_e()


def draws(random: np.random.Generator, chance: float) -> Draws:
    """Whether an event of this chance happens, for each peek of each run of a batch."""
    return random.random((BATCH, PEEKS), dtype=np.float32) < chance


def counted(events: Draws) -> NDArray[np.int64]:
    return np.cumsum(events, axis=1, dtype=np.int64)


def ever(log_e: NDArray[np.float64], limit: float) -> int:
    return int(np.sum(np.any(log_e >= limit, axis=1)))
