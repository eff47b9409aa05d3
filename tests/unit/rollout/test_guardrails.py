"""Each guardrail breaks for its own reason, and for nothing less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from core.types import VERSIONS, Version
from rollout.guardrails import GuardrailResult, judge
from rollout.policy import Guardrails


@dataclass(frozen=True)
class Arm:
    answered: int = 1_000
    failed: int = 0
    computed: int = 800
    p95_ms: float | None = 40.0
    slower: int = 40  # than any limit

    def slower_than(self, milliseconds: float) -> int:
        assert milliseconds >= 1.5
        return self.slower


@dataclass(frozen=True)
class Seen:
    arms: Mapping[Version, Arm] = field(default_factory=lambda: dict.fromkeys(VERSIONS, Arm()))
    sentiment_psi: float | None = 0.01
    sentiment_psi_noise: float | None = 0.02
    compared: int = 500
    agreed: int = 470
    findings: tuple[str, ...] = ("no_difference_yet",)


def with_challenger(**of: object) -> Seen:
    return Seen(arms={"v1": Arm(), "v2": replace(Arm(), **of)})  # type: ignore[arg-type]


def states(seen: Seen, limits: Guardrails | None = None) -> dict[str, str]:
    return {one.name: one.state for one in judge("v1", limits or Guardrails(), seen)}


def broken(seen: Seen, champion: Version = "v1") -> list[GuardrailResult]:
    return [one for one in judge(champion, Guardrails(), seen) if one.state == "broken"]


def test_a_challenger_that_is_as_good_keeps_all() -> None:
    assert set(states(Seen()).values()) == {"kept"}


@pytest.mark.parametrize(
    ("seen", "name", "says"),
    [
        (with_challenger(failed=60), "errors", "v2 did not answer 60 of 1,060 texts"),
        (with_challenger(answered=0, failed=12), "errors", "12 of 12"),
        (with_challenger(p95_ms=61.0, slower=90), "latency", "v2 takes 61 ms"),
        (with_challenger(computed=40, p95_ms=99.0, slower=20), "latency", "of 40 computed"),
        (Seen(sentiment_psi=0.4), "sentiments", "0.40 (PSI)"),
        (Seen(compared=500, agreed=300), "agreement", "300 of 500"),
        (Seen(compared=20, agreed=2), "agreement", "2 of 20"),
        (Seen(findings=("v1_better",)), "accuracy", "v2 is less accurate than v1"),
        (Seen(findings=("sample_ratio_mismatch",)), "split", "not dealt out"),
    ],
)
def test_each_breaks_for_its_own_reason(seen: Seen, name: str, says: str) -> None:
    [one] = broken(seen)
    assert one.name == name
    assert says in one.sentence


@pytest.mark.parametrize(
    "seen",
    [
        with_challenger(answered=9, failed=1),  # by chance
        with_challenger(answered=1_000, failed=12),  # hardly above
        with_challenger(p95_ms=61.0, slower=60),  # hardly above
        with_challenger(computed=20, p95_ms=400.0, slower=4),  # of too few
        with_challenger(p95_ms=None, computed=0),
        Seen(arms={"v1": Arm(computed=20), "v2": Arm(p95_ms=99.0, slower=400)}),
        Seen(sentiment_psi=0.4, sentiment_psi_noise=0.5),  # samples of these sizes do that
        Seen(compared=10, agreed=7),
        Seen(compared=0, agreed=0),
        Seen(findings=("v2_better",)),
        Seen(findings=()),
    ],
)
def test_what_may_be_chance_breaks_nothing(seen: Seen) -> None:
    assert broken(seen) == []


def test_what_the_champion_fails_at_too_is_not_held_against_the_challenger() -> None:
    both = Seen(arms=dict.fromkeys(VERSIONS, Arm(failed=60)))
    assert broken(both) == []


def test_small_latencies_do_not_matter() -> None:
    class Fast(Arm):
        def slower_than(self, milliseconds: float) -> int:
            return 800 if milliseconds < 5.5 else 0

    fast = Seen(arms={"v1": Fast(p95_ms=1.0), "v2": Fast(p95_ms=5.5)})
    assert broken(fast) == []


def test_too_little_to_judge_by_is_waited_for() -> None:
    assert states(with_challenger(answered=40))["errors"] == "waiting"
    assert states(with_challenger(answered=40), Guardrails(min_predictions=20))["errors"] == "kept"


def test_roles_are_told_apart() -> None:
    slow = Arm(p95_ms=90.0, slower=200)
    slow_v1 = Seen(arms={"v1": slow, "v2": Arm()}, findings=("v2_better",))
    assert {one.name for one in broken(slow_v1, champion="v2")} == {"latency", "accuracy"}
    assert broken(slow_v1) == []


def test_accuracy_is_judged_only_if_asked() -> None:
    limits = Guardrails(judge_accuracy=False)
    assert states(Seen(findings=("v1_better",)), limits)["accuracy"] == "kept"
