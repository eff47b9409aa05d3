"""A policy that restores other models gets its traffic once they are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from core.types import DesiredModel, RunnerDescription, Version
from rollout.changes import Action
from rollout.policy import Models, RolloutPolicy, Weights
from rollout.record import PolicyRecord
from rollout.traffic import Traffic
from tests.unit.fakes import runner_description

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OLD, NEW = "m-v2:old", "m-v2:new"


def policy(generation: int, tag: str, **fields: Any) -> RolloutPolicy:
    generations: dict[Version, int] = {"v1": 0, "v2": generation}
    return RolloutPolicy(models=Models(v2=tag), model_generations=generations, **fields)


@dataclass
class Process:
    """The traffic of one API process whose runners hold what the test says, v2 the newer model."""

    records: list[PolicyRecord]
    held: dict[Version, DesiredModel] = field(
        default_factory=lambda: {"v1": DesiredModel(None, 0), "v2": DesiredModel(NEW, 1)}
    )
    refused: str | None = None
    has_read: bool = True

    def __post_init__(self) -> None:
        self.traffic = Traffic(lambda: self.records[-1], self.describe, self.earlier)

    @property
    def newest(self) -> RolloutPolicy:
        return self.records[-1].policy

    def describe(self, version: Version) -> RunnerDescription | None:
        if (held := self.held.get(version)) is None:
            return None
        return runner_description(
            version,
            tag=held.tag or "configured:1",
            observed_generation=held.generation,
            load_error=self.refused,
        )

    def earlier(self) -> dict[Version, list[PolicyRecord]]:
        generations = self.newest.model_generations
        return {
            version: [one for one in reversed(self.records) if one.version <= generation]
            for version, generation in generations.items()
            if self.has_read
        }

    def activate(self, action: Action, new: RolloutPolicy) -> None:
        self.records.append(record(self.records[-1].version + 1, action, new))


def record(version: int, action: Action, new: RolloutPolicy) -> PolicyRecord:
    return PolicyRecord(version, NOW, "ana", action, "a test", new)


def process_of(new: RolloutPolicy) -> Process:
    """One that has applied the configured policy, a reload, and `new`."""
    configured = record(0, "set", policy(0, NEW))
    process = Process([configured, record(1, "reload", policy(1, NEW)), record(4, "set", new)])
    process.traffic.policy()
    return process


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
    process = process_of(policy(1, NEW, **{name: before}))
    process.activate("roll_back", policy(5, OLD, **{name: after}))
    for _ in range(2):
        assert getattr(process.traffic.policy(), name) == less
    process.held["v2"] = DesiredModel(OLD, 5)
    assert process.traffic.policy() is process.newest
    process.held.clear()  # the traffic does not move back
    assert process.traffic.policy() is process.newest


def test_traffic_stays_while_both_versions_load() -> None:
    before = policy(1, NEW, champion="v1", ab_weights=LESS)
    process = process_of(before)
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
    process = process_of(policy(1, NEW, ab_weights=LESS))
    process.activate(action, policy(generation, NEW, ab_weights=MORE))
    assert process.traffic.policy() is process.newest


def test_change_during_the_wait_waits_too_where_it_gives_more() -> None:
    process = process_of(policy(1, NEW, ab_weights=LESS))
    process.activate("roll_back", policy(5, OLD, ab_weights=MORE))
    assert process.traffic.policy().ab_weights == LESS
    for weights, expected in ((Weights(v1=50, v2=50), LESS), (LESS, LESS)):
        process.activate("set", policy(5, OLD, ab_weights=weights))
        assert process.traffic.policy().ab_weights == expected
    process.held["v2"] = DesiredModel(OLD, 5)
    assert process.traffic.policy() is process.newest


def test_first_reading_of_the_policy_that_was_saved_here_is_no_change() -> None:
    restored = policy(5, OLD, ab_weights=MORE)
    process = Process([record(5, "roll_back", restored)], {"v2": DesiredModel(OLD, 5)})
    process.traffic.policy()
    process.records = [record(5, "roll_back", restored.model_copy())]
    assert process.traffic.policy() is process.newest


def test_policies_that_no_request_came_under_count_too() -> None:
    """A process held back to the policy of its last request, which had sent half to v2."""
    process = process_of(policy(1, NEW, ab_weights=MORE))
    process.records.append(record(5, "set", policy(1, NEW, ab_weights=LESS)))
    process.activate("roll_back", policy(6, OLD, ab_weights=MORE))
    assert process.traffic.policy().ab_weights == LESS


def started(*records: PolicyRecord, held: DesiredModel, refused: str | None = None) -> Process:
    """A process that starts when `records` are the policies, the newest last."""
    configured = record(0, "set", policy(0, NEW))
    held_by: dict[Version, DesiredModel] = {"v1": DesiredModel(None, 0), "v2": held}
    process = Process([configured, *records], {}, refused, has_read=False)
    # Neither PostgreSQL nor a runner has answered.
    assert process.traffic.policy() is process.newest
    process.has_read = True
    assert process.traffic.policy() is process.newest
    process.held.update(held_by)
    return process


REFUSED = "m-v2:old: missing: model.onnx"


@pytest.mark.parametrize("refused", [None, REFUSED])
def test_process_that_starts_holds_back_what_a_roll_back_gave_a_model_that_is_not_there(
    refused: str | None,
) -> None:
    """A killed process came back and gave all traffic to a model that had none."""
    before = record(4, "reload", policy(4, NEW, ab_weights=LESS))
    after = record(5, "roll_back", policy(5, OLD, ab_weights=MORE))
    held = DesiredModel(NEW, 4 if refused is None else 5)
    process = started(before, after, held=held, refused=refused)
    for _ in range(2):
        assert process.traffic.policy().ab_weights == LESS
        assert process.traffic.waits_for() == ["v2"]
    process.held["v2"], process.refused = DesiredModel(OLD, 5), None
    assert process.traffic.policy() is after.policy
    assert process.traffic.waits_for() == []


def test_policy_before_is_the_newest_that_named_the_model_that_is_held() -> None:
    """Two roll-backs were refused, one after the other."""
    first = record(3, "reload", policy(3, NEW, ab_weights=LESS))
    refused = record(4, "roll_back", policy(4, "m-v2:gone", ab_weights=MORE))
    newest = record(5, "roll_back", policy(5, OLD, ab_weights=MORE))
    process = started(first, refused, newest, held=DesiredModel(NEW, 5), refused=REFUSED)
    assert process.traffic.policy().ab_weights == LESS


def test_model_that_no_policy_named_gets_no_more_than_by_the_policy_before() -> None:
    before = record(4, "reload", policy(4, NEW, ab_weights=LESS))
    after = record(5, "roll_back", policy(5, OLD, ab_weights=MORE))
    held = DesiredModel("m-v2:another", 5)
    process = started(before, after, held=held, refused=REFUSED)
    assert process.traffic.policy().ab_weights == LESS


def test_later_change_of_the_traffic_waits_too_in_a_process_that_starts() -> None:
    before = record(4, "reload", policy(4, NEW, ab_weights=LESS))
    rolled_back = record(5, "roll_back", policy(5, OLD, ab_weights=LESS))
    newest = record(6, "set", policy(5, OLD, ab_weights=MORE))
    process = started(before, rolled_back, newest, held=DesiredModel(NEW, 5), refused=REFUSED)
    assert process.traffic.policy().ab_weights == LESS


@pytest.mark.parametrize("action", ["reload", "roll_back"])
def test_process_that_starts_applies_the_newest_policy_where_nothing_waits(action: Action) -> None:
    """A reload that is refused changes no traffic; one that is done has nothing to wait for."""
    before = record(4, "reload", policy(4, NEW, ab_weights=LESS))
    after = record(5, action, policy(5, OLD, ab_weights=MORE))
    refused = REFUSED if action == "reload" else None
    held = DesiredModel(NEW if refused else OLD, 5)
    process = started(before, after, held=held, refused=refused)
    assert process.traffic.policy() is after.policy
