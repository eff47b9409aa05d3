"""The comparisons of the guardrails: exact to references, seldom wrong, and soon right."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from core.types import ARM_GROUPS
from loadtest.simulation.guardrails import SCENARIOS, Scenario, simulate
from stats.exceedance import (
    design_effect,
    failures_exceed,
    failures_jump,
    latency_exceeds,
    psi_at_least,
)
from stats.wilson import newcombe_bounds, wilson_bounds

PAIRS = [
    (0, 30, 0, 30), (0, 570, 1, 30), (1, 570, 12, 30), (5, 30, 30, 30), (30, 30, 0, 30),
    (2, 1_000, 60, 1_000), (600, 1_000, 500, 1_000), (7, 10**6, 9, 10**6), (10**5, 10**6, 3, 4),
    (1, 1, 0, 1), (999, 1_000, 1, 1_000),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_bounds_equal_those_of_statsmodels(pair: tuple[int, int, int, int]) -> None:
    first, of_first, second, of_second = pair
    reference = confint_proportions_2indep(
        second, of_second, first, of_first, method="newcomb", compare="diff", alpha=0.05
    )
    assert newcombe_bounds(*pair) == pytest.approx(reference, abs=1e-9)
    score = proportion_confint(second, of_second, method="wilson")
    assert wilson_bounds(second, of_second) == pytest.approx(score, abs=1e-9)


def test_nothing_is_known_of_no_texts() -> None:
    assert newcombe_bounds(0, 0, 3, 5) == pytest.approx((-1, 1))
    assert wilson_bounds(0, 0) == pytest.approx((0, 1))


def dealt(
    *cells: int, groups: int = ARM_GROUPS
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Counts of cells, dealt evenly to the first `groups`."""
    counts = np.zeros((ARM_GROUPS, len(cells)))
    counts[:groups] = np.array(cells) / groups
    return counts


@pytest.mark.parametrize(
    ("champion", "challenger", "limit", "exceeds"),
    [
        (dealt(1, 569), dealt(1, 29), 0.01, False),
        (dealt(1, 569), dealt(12, 18), 0.01, True),
        (dealt(0, 570), dealt(30, 0), 0.01, True),
        (dealt(171, 399), dealt(9, 21), 0.0, False),  # a burst that hits both
        (dealt(20, 9_980), dealt(70, 9_930), 0.01, False),  # +0.5 points
        (dealt(20, 9_980), dealt(320, 9_680), 0.01, True),  # the slow test: +3 points
        (dealt(20, 9_980), dealt(60, 1_940), 0.01, True),  # the fast test
        (dealt(20, 9_980), dealt(60, 1_940, groups=1), 0.01, True),
        (np.zeros((ARM_GROUPS, 2)), dealt(30, 0), 0.01, False),
        (dealt(5, 25), np.zeros((ARM_GROUPS, 2)), 0.01, False),
    ],
)
def test_failures_exceed_the_limit_beyond_chance(
    champion: np.ndarray,
    challenger: np.ndarray,
    limit: float,
    exceeds: bool,
) -> None:
    assert bool(failures_exceed(champion, challenger, limit)) is exceeds


def test_failures_jump_by_large_differences_alone() -> None:
    assert failures_jump(dealt(1, 569), dealt(20, 10), 0.01)
    assert not failures_jump(dealt(1, 569), dealt(3, 27), 0.01)
    assert not failures_jump(dealt(100, 100), dealt(20, 10), 0.01)
    assert failures_jump(np.zeros((ARM_GROUPS, 2)), dealt(38, 2), 0.01)
    assert not failures_jump(np.zeros((ARM_GROUPS, 2)), dealt(20, 20), 0.01)


def test_failures_of_a_single_subject_weigh_less() -> None:
    spread, of_one = dealt(64, 1_936), dealt(0, 1_936)
    of_one[3, 0] = 64
    assert design_effect(spread).design_effect == 1
    assert design_effect(of_one).design_effect > 20
    assert failures_exceed(dealt(4, 9_996), spread, 0.01)
    assert not failures_exceed(dealt(4, 9_996), of_one, 0.01)


def test_a_look_of_many_equals_the_look_alone() -> None:
    champion = np.stack([dealt(2, 998), dealt(4, 1_996)])
    challenger = np.stack([dealt(2, 98), dealt(60, 440)])
    together = failures_exceed(champion, challenger, 0.01)
    alone = [bool(failures_exceed(a, b, 0.01)) for a, b in zip(champion, challenger, strict=True)]
    assert together.tolist() == alone == [False, True]


def test_psi_is_at_least_below_what_was_seen_and_approaches_it() -> None:
    found = [
        float(psi_at_least(dealt(3 * n, n, 6 * n), dealt(4 * n, n, 5 * n)))
        for n in (10, 100, 1_000, 10_000, 10**6)
    ]
    true = 0.1 * np.log(4 / 3) + 0.1 * np.log(6 / 5)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == pytest.approx(true, rel=0.05)
    assert found[-1] < true
    assert psi_at_least(dealt(0, 0, 0), dealt(4, 1, 5)) == 0


def test_latency_of_a_load_that_hits_both_is_no_difference() -> None:
    values = np.array([10.0, 20.0, 40.0])
    busy, calm = dealt(500, 200, 300), dealt(950, 40, 10)
    assert not latency_exceeds(busy, busy, values, 1.3, 5.0).exceeds
    assert latency_exceeds(calm, busy, values, 1.3, 5.0).exceeds
    assert not latency_exceeds(calm, busy, values, 1.3, 50.0).exceeds


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_promise_is_kept_in_simulated_rollouts(scenario: Scenario) -> None:
    """The short form of `sentiment simulate guardrails`."""
    rollouts = 2 if scenario.median_minutes is None else 7
    found = simulate(scenario, rollouts, seed=3)
    assert found.rollouts == rollouts
    assert found.is_kept
    if scenario.most_taken_back is None:
        assert found.taken_back == rollouts
