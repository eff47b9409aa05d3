"""The short form of `sentiment simulate verdicts`: what docs/statistics.md promises of verdicts."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from loadtest.simulation.verdicts import Result, Scenario, scenarios, simulate
from stats.verdict import ALPHA

SHORT = {scenario.name: scenario for scenario in scenarios(scale=0.1)}


@pytest.mark.parametrize(
    "name",
    ["20 alike texts of a subject, equal", "v1 much better with few, v2 with many",
     "arms, 90% right, 20% to v2, equal", "arms, 99% right, 5% to v2, equal",
     "arms, 90% right, 50% and not 5% to v2, equal", "correct split, 5% to v2"],
)  # fmt: skip
def test_promise_is_kept_in_short_tests(name: str) -> None:
    found = simulate(SHORT[name], 50, 1, lambda: None, time.monotonic() + 60)
    assert found.runs == 50
    assert found.is_kept


def test_way_of_counting_that_breaks_the_promise_is_found() -> None:
    uneven = [scenario for scenario in scenarios(scale=0.1) if "sign of each" in scenario.name][-1]
    promised = replace(uneven, most_verdicts=ALPHA)
    assert not simulate(promised, 50, 1, lambda: None, time.monotonic() + 60).is_kept


def test_better_version_is_found_with_one_text_of_each_subject() -> None:
    random = np.random.default_rng(1)
    labels = SHORT["10 % to 6 %, a text of each subject"].run(random)
    assert 20 <= labels < float("inf")


def test_promise_is_broken_only_beyond_chance() -> None:
    scenario = Scenario("equal", lambda _: 1.0, most_verdicts=0.05)
    assert Result(scenario, [1.0] + [float("inf")] * 9).is_kept
    assert not Result(scenario, [1.0] * 3 + [float("inf")] * 7).is_kept
    assert Result(scenario, [1.0] * 3).within(0.5) == 1


def test_simulation_ends_in_time() -> None:
    found = simulate(Scenario("equal", lambda _: 1.0), 1_000, 1, lambda: None, time.monotonic())
    assert found.runs == 1
