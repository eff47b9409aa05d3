"""The looks of a step: every five seconds at first, then whenever it is 1 % older."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from rollout.evidence import evidence
from rollout.looks import last_look, look_seconds
from rollout.policy import Progress, RolloutPolicy, Schedule, Weights
from rollout.record import PolicyRecord
from stats.arm_metrics import Stratum

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lasted", "look"),
    [(-3, 0), (0, 0), (4.9, 0), (5, 5), (9.99, 5), (10, 10), (499, 495), (500, 500), (504, 500),
     (505.1, 505), (3_600, 3_586), (604_800, 602_606)],
)  # fmt: skip
def test_last_look_is_on_the_grid_of_the_step(lasted: float, look: float) -> None:
    found = last_look(START, START + timedelta(seconds=lasted))
    assert (found - START).total_seconds() == pytest.approx(look, rel=0.002)


def test_every_simulated_look_is_one_of_the_service() -> None:
    looks = list(look_seconds(100_000))
    for look in looks:
        found = last_look(START, START + timedelta(seconds=look + 0.001))
        assert (found - START).total_seconds() == pytest.approx(look, abs=0.01)
    assert all(5 <= after - before <= 0.0101 * after + 5 for before, after in pairwise(looks))


def record(**fields: Any) -> PolicyRecord:
    return PolicyRecord(1, START, "ana", "set", "try", RolloutPolicy(**fields))


AB, PREDICT = Stratum(("/predict/ab",), ("/predict/ab",)), Stratum(("/predict",), ("/predict",))
BOTH = Stratum(("/predict", "/predict/ab"), ("/predict", "/predict/ab"))
SHADOW = Stratum(("/predict",), ("shadow",))
NONE, FIVE, HALF, ALL = (Weights.with_share(share, "v2") for share in (0, 5, 50, 100))


@pytest.mark.parametrize(
    ("ab", "predict", "strata"),
    [
        (HALF, None, (AB,)), (FIVE, NONE, (AB,)), (HALF, HALF, (BOTH,)), (NONE, FIVE, (PREDICT,)),
        (HALF, FIVE, (PREDICT, AB)), (NONE, None, (SHADOW,)), (ALL, None, (AB,)),
    ],
)  # fmt: skip
def test_routes_of_equal_shares_are_judged_together(
    ab: Weights, predict: Weights | None, strata: tuple[Stratum, ...]
) -> None:
    policy = record(ab_weights=ab, predict_weights=predict, shadow_percent=10)
    assert evidence(policy, START).strata == strata


def test_windows_of_both_versions_begin_with_the_step() -> None:
    step = START + timedelta(hours=2)
    policy = record(
        schedule=Schedule(steps=(5, 50), hold_seconds=7_200),
        progress=Progress(step=1, started=START, since=step),
    )
    now = step + timedelta(seconds=1_200)
    found = evidence(policy, now)
    assert (found.since, found.now) == (step, now)
    assert found.lately == now - timedelta(seconds=600)
    assert now - timedelta(seconds=13) < found.until <= now
    assert evidence(policy, step + timedelta(seconds=7)).lately == step


def test_policy_of_the_future_is_judged_by_what_came_since_it_is_known() -> None:
    """The clock was set back: until it is as late again, nothing would be read."""
    policy = record(ab_weights=HALF)
    now = START - timedelta(hours=2)
    found = evidence(policy, now, known_seconds=300)
    assert (found.since, found.lately) == (now - timedelta(seconds=300),) * 2
    assert evidence(policy, now, known_seconds=1_200).lately == now - timedelta(seconds=600)
    assert evidence(policy, START, known_seconds=300).since == START
