"""Each guardrail fails for its own reason, and never by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from core.types import VERSIONS, Sentiment, Version
from rollout.guardrails import GuardrailResult, evaluate
from rollout.policy import Guardrails
from stats.arm_metrics import ArmMetrics, RolloutMetrics
from stats.histogram import Counts


@dataclass(frozen=True)
class Arm(ArmMetrics):
    answered: int = 1_000
    failed: int = 0
    computed: int = 800
    p95_ms: float | None = 40.0
    sentiments: Mapping[Sentiment, int] = field(default_factory=dict)
    latencies: Counts = field(default_factory=dict)
    slower: int = 40  # than any limit

    def slower_than(self, milliseconds: float) -> int:
        assert milliseconds >= 1.5
        return self.slower


@dataclass(frozen=True)
class Measured(RolloutMetrics):
    arms: Mapping[Version, ArmMetrics] = field(
        default_factory=lambda: dict.fromkeys(VERSIONS, Arm())
    )
    sentiment_psi: float | None = 0.01
    sentiment_psi_noise: float | None = 0.02
    compared: int = 500
    agreed: int = 470
    findings: tuple[str, ...] = ("no_difference_yet",)


def with_challenger(**of: object) -> Measured:
    return Measured(arms={"v1": Arm(), "v2": replace(Arm(), **of)})  # type: ignore[arg-type]


def states(measured: Measured, limits: Guardrails | None = None) -> dict[str, str]:
    results = evaluate("v1", limits or Guardrails(), measured)
    return {result.name: result.state for result in results}


def failed(measured: Measured, champion: Version = "v1") -> list[GuardrailResult]:
    results = evaluate(champion, Guardrails(), measured)
    return [result for result in results if result.state == "fail"]


def test_equal_challenger_passes_every_guardrail() -> None:
    assert set(states(Measured()).values()) == {"pass"}


@pytest.mark.parametrize(
    ("measured", "name", "text"),
    [
        (with_challenger(failed=60), "errors", "v2 did not answer 60 of 1,060 texts"),
        (with_challenger(answered=0, failed=12), "errors", "12 of 12"),
        (with_challenger(p95_ms=61.0, slower=90), "latency", "v2 takes 61 ms"),
        (with_challenger(computed=40, p95_ms=99.0, slower=20), "latency", "of 40 computed"),
        (Measured(sentiment_psi=0.4), "sentiments", "0.40 (PSI)"),
        (Measured(compared=500, agreed=300), "agreement", "300 of 500"),
        (Measured(compared=20, agreed=2), "agreement", "2 of 20"),
        (Measured(findings=("v1_better",)), "accuracy", "v2 is less accurate than v1"),
        (Measured(findings=("sample_ratio_mismatch",)), "split", "not split as the weights say"),
    ],
)
def test_guardrail_fails_for_its_own_reason(measured: Measured, name: str, text: str) -> None:
    [result] = failed(measured)
    assert result.name == name
    assert text in result.sentence


@pytest.mark.parametrize(
    "measured",
    [
        with_challenger(answered=9, failed=1),  # one failure may be chance
        with_challenger(answered=1_000, failed=12),  # just above the limit
        with_challenger(p95_ms=61.0, slower=60),  # just above the limit
        with_challenger(computed=20, p95_ms=400.0, slower=4),  # too few answers
        with_challenger(p95_ms=None, computed=0),
        Measured(arms={"v1": Arm(computed=20), "v2": Arm(p95_ms=99.0, slower=400)}),
        Measured(sentiment_psi=0.4, sentiment_psi_noise=0.5),  # within the noise
        Measured(compared=10, agreed=7),
        Measured(compared=0, agreed=0),
        Measured(findings=("v2_better",)),
        Measured(findings=()),
    ],
)
def test_difference_within_chance_fails_no_guardrail(measured: Measured) -> None:
    assert failed(measured) == []


def test_errors_of_both_versions_alike_fail_no_guardrail() -> None:
    both = Measured(arms=dict.fromkeys(VERSIONS, Arm(failed=60)))
    assert failed(both) == []


def test_difference_below_5_ms_passes_at_any_ratio() -> None:
    class Fast(Arm):
        def slower_than(self, milliseconds: float) -> int:
            return 800 if milliseconds < 5.5 else 0

    fast = Measured(arms={"v1": Fast(p95_ms=1.0), "v2": Fast(p95_ms=5.5)})
    assert failed(fast) == []


def test_errors_guardrail_is_pending_below_min_predictions() -> None:
    assert states(with_challenger(answered=40))["errors"] == "pending"
    assert states(with_challenger(answered=40), Guardrails(min_predictions=20))["errors"] == "pass"


def test_guardrails_compare_the_challenger_to_the_champion() -> None:
    slow = Arm(p95_ms=90.0, slower=200)
    slow_v1 = Measured(arms={"v1": slow, "v2": Arm()}, findings=("v2_better",))
    assert {result.name for result in failed(slow_v1, champion="v2")} == {"latency", "accuracy"}
    assert failed(slow_v1) == []


def test_accuracy_passes_if_judge_accuracy_is_off() -> None:
    limits = Guardrails(judge_accuracy=False)
    assert states(Measured(findings=("v1_better",)), limits)["accuracy"] == "pass"
