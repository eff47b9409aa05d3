"""A dry run says the smallest difference that each step of its schedule will notice."""

from __future__ import annotations

from typing import Any

import pytest

from rollout.policy import Guardrails, RolloutPolicy, Schedule
from rollout.sensitivity import sensitivities

HOUR = Schedule(steps=(5, 25, 100), hold_seconds=3_600)


def of(rate: float, schedule: Schedule = HOUR, **limits: Any) -> list[tuple[float | None, ...]]:
    policy = RolloutPolicy(schedule=schedule, guardrails=Guardrails(**limits))
    found = sensitivities(policy, rate)
    assert [step.percent for step in found] == list(schedule.steps)
    return [(step.error_increase, step.sentiment_shift) for step in found]


def test_more_texts_notice_smaller_differences() -> None:
    (few, _), (more, _), alone = of(4.0)
    assert few is not None
    assert more is not None
    assert 0.02 < few < 0.035
    assert 0.01 < more < few
    assert alone == (None, None)  # nobody is left to compare with
    [(busy, shift), *_] = of(400.0)
    assert busy is not None
    assert 0.01 < busy < more
    assert shift is not None
    assert 0.07 < shift < 0.1  # PSI above 0.02


def test_too_few_texts_notice_nothing() -> None:
    assert of(0.1)[0] == (None, None)  # 18 texts
    assert of(0.0) == [(None, None)] * 3
    [(least, shift), *_] = of(0.1, min_predictions=10)
    assert shift is None or shift > 0.3
    assert least is None or least > 0.1


def test_smaller_limit_notices_smaller_differences() -> None:
    at_0, at_1 = of(4.0, max_error_rate_increase=0)[0][0], of(4.0)[0][0]
    assert at_0 is not None
    assert at_1 is not None
    assert at_0 < at_1


@pytest.mark.parametrize("policy", [RolloutPolicy(), RolloutPolicy(schedule=HOUR)])
def test_policy_without_schedule_or_guardrails_notices_nothing(policy: RolloutPolicy) -> None:
    assert sensitivities(policy, 4.0) == []
