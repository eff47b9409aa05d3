"""How often guardrails take a rollout back, and how soon, by the functions that judge.

The rollouts have three steps: an hour at 5 %, a day at 25 % and a week at 50 % of four texts a
second (loadtest/simulation/traffic.py). Each is judged at the looks that the service has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.simulation.traffic import (
    LATENCIES,
    LATENCY_LOOKS,
    Challenge,
    StepCounts,
    rollout_steps,
)
from rollout.guardrails import LEAST_LATENCY_MS
from rollout.policy import Guardrails
from stats.exceedance import failures_exceed, latency_exceeds, psi_at_least
from stats.wilson import wilson_interval

Flags = NDArray[np.bool_]
CLUSTERED, MANY = 1_000, 20_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """A challenger, its limits, and what is promised of it."""

    name: str
    challenge: Challenge
    limits: Guardrails
    most_taken_back: float | None = None  # a share of the rollouts
    median_minutes: float | None = None  # until it is taken back

    @property
    def is_promised(self) -> bool:
        return bool(self.most_taken_back or self.median_minutes)


AT_1_POINT = Guardrails()
AT_0 = Guardrails(max_error_rate_increase=0)
_MORE_5 = Challenge(more_errors=0.05, subjects=MANY)
_MORE_2 = Challenge(more_errors=0.02, subjects=MANY)
SCENARIOS = (
    Scenario("equal, common bursts", Challenge(), AT_1_POINT, most_taken_back=0.01),
    Scenario("equal, 2 % errors", Challenge(errors=0.02), AT_1_POINT, most_taken_back=0.01),
    Scenario("equal, many subjects", Challenge(subjects=MANY), AT_1_POINT, most_taken_back=0.01),
    Scenario("equal, limit 0", Challenge(), AT_0, most_taken_back=0.02),
    Scenario("equal, limit 0, 2 % errors", Challenge(errors=0.02), AT_0, most_taken_back=0.02),
    Scenario("equal, limit 0, many subjects", Challenge(subjects=MANY), AT_0, most_taken_back=0.02),
    Scenario("+5 points of errors", _MORE_5, AT_1_POINT, median_minutes=10),
    Scenario("+2 points of errors", _MORE_2, AT_1_POINT, median_minutes=90),
    Scenario("twice as slow", Challenge(slower=2.0), AT_1_POINT),
    Scenario("1.5 times as slow", Challenge(slower=1.5), AT_1_POINT),
    Scenario("0.6 positive to 0.5", Challenge(mix=(0.4, 0.1, 0.5), subjects=MANY), AT_1_POINT),
)


@dataclass(frozen=True, slots=True)
class Result:
    """How many of the simulated rollouts were taken back, and after how many minutes."""

    scenario: Scenario
    rollouts: int
    taken_back: int
    in_time: int  # taken back within the promised median
    median_minutes: float  # infinite if half of them were not
    most_minutes_of_90_percent: float

    @property
    def interval(self) -> tuple[float, float]:
        found = wilson_interval(self.taken_back, self.rollouts)
        return (0.0, 1.0) if found is None else (found.low, found.high)

    @property
    def is_kept(self) -> bool:
        """Whether what was seen breaks no promise beyond chance (Wilson's interval, 95 %)."""
        most = self.scenario.most_taken_back
        if self.scenario.median_minutes is not None:
            in_time = wilson_interval(self.in_time, self.rollouts)
            return in_time is not None and in_time.high >= 0.5
        return most is None or self.interval[0] <= most

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "rollouts": self.rollouts,
            "taken_back": self.taken_back,
            "taken_back_share_95": self.interval,
            "median_minutes": self.median_minutes,
            "most_minutes_of_90_percent": self.most_minutes_of_90_percent,
            "is_promise_kept": self.is_kept,
        }


def simulate(
    scenario: Scenario, rollouts: int, seed: int,
    on_rollout: Callable[[], None] = lambda: None, until: float = np.inf,
) -> Result:  # fmt: skip
    """Simulate rollouts, fewer if `time.monotonic()` passes `until`."""
    random, minutes = np.random.default_rng(seed), list[float]()
    while len(minutes) < rollouts and (not minutes or time.monotonic() < until):
        minutes.append(taken_back_after(rollout_steps(random, scenario.challenge), scenario.limits))
        on_rollout()
    found = np.sort(minutes)
    return Result(
        scenario,
        len(minutes),
        int(np.isfinite(found).sum()),
        int((found <= (scenario.median_minutes or 0)).sum()),
        float(found[len(found) // 2]),
        float(found[int(len(found) * 0.9)]),
    )


def taken_back_after(steps: Iterator[StepCounts], limits: Guardrails) -> float:
    """The minutes until a guardrail fails; infinite if none does."""
    for step in steps:
        fails = judged(step, limits)
        if fails.any():
            return float(step.began + step.seconds[int(fails.argmax())]) / 60
    return np.inf


def judged(step: StepCounts, limits: Guardrails) -> Flags:
    """Whether a guardrail fails, at each look."""
    enough = step.failures[1].sum(axis=(-2, -1)) >= limits.min_predictions
    fails = failures_exceed(step.failures[0], step.failures[1], limits.max_error_rate_increase)
    fails |= psi_at_least(step.sentiments[0], step.sentiments[1]) > limits.max_sentiment_drift
    slow = latency_exceeds(
        step.latencies[0], step.latencies[1], LATENCIES, limits.max_latency_ratio, LEAST_LATENCY_MS
    )
    many = step.latencies.sum(axis=(-2, -1)).min(axis=0) >= limits.min_predictions
    fails[LATENCY_LOOKS - 1 :: LATENCY_LOOKS] |= slow.exceeds & many
    return np.asarray(fails & enough)
