"""A policy that restores other models gets its traffic once they are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from core.types import DesiredModel, Version
from rollout.changes import Action
from rollout.policy import Models, RolloutPolicy, Weights
from rollout.record import PolicyRecord
from rollout.traffic import Traffic

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OLD, NEW = "m-v2:old", "m-v2:new"


def policy(generation: int, tag: str, **fields: Any) -> RolloutPolicy:
    generations: dict[Version, int] = {"v1": 0, "v2": generation}
    return RolloutPolicy(models=Models(v2=tag), model_generations=generations, **fields)


@dataclass
class Process:
    """The traffic of one API process whose runners hold what the test says."""

    record: PolicyRecord
    held: dict[Version, DesiredModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.traffic = Traffic(lambda: self.record, self.holds)

    def holds(self, version: Version, desired: DesiredModel) -> bool:
        return self.held.get(version) == desired

    def activate(self, action: Action, new: RolloutPolicy) -> None:
        self.record = record(self.record.version + 1, action, new)


def record(version: int, action: Action, new: RolloutPolicy) -> PolicyRecord:
    return PolicyRecord(version, NOW, "ana", action, "a test", new)


LESS = Weights(v1=100, v2=0)
MORE = Weights(v1=20, v2=80)


@pytest.mark.parametrize(
    ("name", "less", "more"),
    [
        ("champion", "v1", "v2"),
        ("predict_weights", LESS, MORE),
        ("ab_weights", LESS, MORE),
        ("shadow_percent", 0.0, 50.0),
        ("overrides", {}, {"ana": "v2"}),
    ],
)
@pytest.mark.parametrize("is_raised", [True, False])
def test_version_that_loads_gets_the_smaller_share_until_its_model_is_held(
    name: str, less: Any, more: Any, is_raised: bool
) -> None:
    before, after = (less, more) if is_raised else (more, less)
    process = Process(record(4, "set", policy(1, NEW, **{name: before})))
    process.activate("roll_back", policy(5, OLD, **{name: after}))
    for _ in range(2):
        assert getattr(process.traffic.policy(), name) == less
    process.held["v2"] = DesiredModel(OLD, 5)
    assert process.traffic.policy() is process.record.policy
    process.held.clear()  # the traffic does not move back
    assert process.traffic.policy() is process.record.policy


def test_traffic_stays_while_both_versions_load() -> None:
    before = policy(1, NEW, champion="v1", ab_weights=LESS)
    process = Process(record(4, "set", before))
    after = policy(5, OLD, champion="v2", ab_weights=MORE)
    after = after.model_copy(update={"model_generations": {"v1": 5, "v2": 5}})
    process.activate("roll_back", after)
    held = process.traffic.policy()
    assert (held.champion, held.ab_weights) == ("v1", LESS)
    process.held["v2"] = DesiredModel(OLD, 5)
    held = process.traffic.policy()
    assert (held.champion, held.ab_weights) == ("v2", MORE)  # which spares v1
    process.held["v1"] = DesiredModel(None, 5)
    assert process.traffic.policy() is after


@pytest.mark.parametrize(
    ("action", "generation"), [("set", 1), ("roll_back", 1), ("reload", 5), ("guardrail", 1)]
)
def test_other_changes_are_applied_at_once(action: Action, generation: int) -> None:
    process = Process(record(4, "set", policy(1, NEW, ab_weights=LESS)))
    process.activate(action, policy(generation, NEW, ab_weights=MORE))
    assert process.traffic.policy() is process.record.policy


def test_change_during_the_wait_waits_too_where_it_gives_more() -> None:
    process = Process(record(4, "set", policy(1, NEW, ab_weights=LESS)))
    process.activate("roll_back", policy(5, OLD, ab_weights=MORE))
    assert process.traffic.policy().ab_weights == LESS
    for weights, expected in ((Weights(v1=50, v2=50), LESS), (LESS, LESS)):
        process.activate("set", policy(5, OLD, ab_weights=weights))
        assert process.traffic.policy().ab_weights == expected
    process.held["v2"] = DesiredModel(OLD, 5)
    assert process.traffic.policy() is process.record.policy


def test_first_reading_of_the_policy_that_was_saved_here_is_no_change() -> None:
    restored = policy(5, OLD, ab_weights=MORE)
    process = Process(record(5, "roll_back", restored))
    process.record = record(5, "roll_back", restored.model_copy())
    assert process.traffic.policy() is process.record.policy
