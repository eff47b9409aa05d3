"""E-values and confidence sequences are seldom wrong, at any number of looks."""

from __future__ import annotations

import numpy as np
import pytest

from stats.confidence_sequence import (
    arms_confidence_sequence,
    paired_confidence_sequence,
)
from stats.outcomes import ArmOutcomes, PairedOutcomes
from stats.sequential import (
    log_e_discordant,
    log_e_split,
    log_threshold,
)
from tests.unit.stats.e_values import BATCHES, LIMIT, PEEKS, RUNS, counted, draws, ever


def test_paired_e_value_seldom_passes_without_a_difference() -> None:
    random, false = np.random.default_rng(1), 0
    for _ in range(BATCHES):
        won = counted(draws(random, 0.5))
        false += ever(log_e_discordant(np.arange(1, PEEKS + 1) - won, won), LIMIT)
    assert false / RUNS <= 0.05


@pytest.mark.parametrize("v2_share", [0.5, 0.1])
def test_split_e_value_seldom_passes_for_a_correct_split(v2_share: float) -> None:
    random, subjects = np.random.default_rng(3), np.arange(1, PEEKS + 1)
    at_5_percent = at_1_permille = 0
    for _ in range(BATCHES):
        second = counted(draws(random, v2_share))
        log_e = log_e_split(subjects - second, second, v2_share)
        at_5_percent += ever(log_e, LIMIT)
        at_1_permille += ever(log_e, log_threshold(0.001))
    assert at_5_percent / RUNS <= 0.05
    assert at_1_permille / RUNS <= 0.001


def test_sequences_cover_the_truth_at_all_looks_at_once() -> None:
    random = np.random.default_rng(4)
    looks = np.geomspace(5, 5_000, 6).astype(int)
    missed = 0
    for _ in range(25):
        scores = random.choice([-1, 0, 1], size=looks[-1], p=[0.05, 0.85, 0.1])
        first, second = random.random((2, looks[-1])) < [[0.85], [0.9]]
        for look in looks.tolist():
            lost, tied, won = np.bincount(scores[:look] + 1, minlength=3).tolist()
            pairs = paired_confidence_sequence(PairedOutcomes(tied, lost, won, 0), 0.05)
            v1 = ArmOutcomes(look, int(first[:look].sum()))
            v2 = ArmOutcomes(look, int(second[:look].sum()))
            randomised = arms_confidence_sequence(v1, v2, 0.5, 0.05)
            missed += not (
                pairs.low <= 0.05 <= pairs.high and randomised.low <= 0.05 <= randomised.high
            )
    assert missed / 25 <= 0.05
