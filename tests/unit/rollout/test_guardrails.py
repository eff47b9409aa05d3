"""Each guardrail fails for its own reason, and never by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from core.types import ARM_GROUPS, VERSIONS, Version
from rollout.guardrails import GuardrailResult, evaluate
from rollout.policy import Guardrails, RolloutPolicy, Weights
from stats.arm_metrics import (
    LATENCY_CELLS,
    LATENCY_OFFSET,
    NOTHING,
    OUTCOMES,
    ArmCounts,
    RolloutMetrics,
    StratumCounts,
)
from stats.histogram import LATENCY_MS

Mix = tuple[int, int, int]


def spread(total: int, cells: int, cell: int) -> dict[int, int]:
    """`total` texts in one cell, dealt evenly to the groups."""
    counts = {
        group * cells + cell: total // ARM_GROUPS + (group < total % ARM_GROUPS)
        for group in range(ARM_GROUPS)
    }
    return {number: count for number, count in counts.items() if count}


def arm(
    mix: Mix = (300, 100, 600), failed: int = 0, slow_ms: float = 40.0, slow: int = 50,
    computed: int = 1_000,
) -> ArmCounts:  # fmt: skip
    """An arm; `slow` of its `computed` answers take `slow_ms`, the others 10 ms."""
    outcomes: dict[int, int] = {}
    for cell, total in enumerate((*mix, failed)):
        outcomes |= spread(total, OUTCOMES, cell)
    latencies = spread(computed - slow, LATENCY_CELLS, place(10.0))
    latencies |= spread(slow, LATENCY_CELLS, place(slow_ms))
    return ArmCounts(outcomes, latencies)


def place(milliseconds: float) -> int:
    return LATENCY_MS.bin_of(milliseconds) + LATENCY_OFFSET


def measured(
    challenger: ArmCounts | None = None, champion: ArmCounts | None = None,
    lately: ArmCounts = NOTHING, lately_champion: ArmCounts = NOTHING, **other: Any,
) -> RolloutMetrics:  # fmt: skip
    """What was measured, with v1 as champion; by default v2 is its equal."""
    stratum = StratumCounts(
        {"v1": champion or arm(), "v2": challenger or arm()},
        {"v1": lately_champion, "v2": lately},
    )
    common: dict[str, Any] = {"compared": 500, "agreed": 470, "findings": ("no_difference_yet",)}
    return RolloutMetrics(**{"strata": (stratum,)} | common | other)


def states(found: RolloutMetrics, limits: Guardrails | None = None) -> dict[str, str]:
    return {result.name: result.state for result in evaluate("v1", limits or Guardrails(), found)}


def failed(found: RolloutMetrics, champion: Version = "v1", **limits: Any) -> list[GuardrailResult]:
    results = evaluate(champion, Guardrails(**limits), found)
    return [result for result in results if result.state == "fail"]


def test_equal_challenger_passes_every_guardrail() -> None:
    assert set(states(measured()).values()) == {"pass"}


@pytest.mark.parametrize(
    ("found", "name", "text"),
    [
        (measured(arm(failed=60)), "errors", "v2 did not answer 60 of 1,060 texts, v1 0 of 1,000"),
        (measured(arm((0, 0, 0), failed=30, computed=0, slow=0)), "errors", "30 of 30 texts"),
        (measured(arm((6, 2, 12), failed=10, computed=0, slow=0)), "errors", "10 of 30 texts"),
        # Late in a long step, of which nothing is seen yet.
        (measured(lately=arm((10, 0, 0), 30), lately_champion=arm()), "errors", "in the last min"),
        # The champion answers none of these texts any more.
        (measured(champion=NOTHING, lately=arm((0, 0, 2), 38)), "errors", "38 of 40 texts"),
        (measured(arm(slow=200, slow_ms=60)), "latency", "times the 10 ms (p95) of v1"),
        (measured(arm((2_000, 500, 2_500)), arm((15_000, 5_000, 30_000))), "sentiments", "PSI"),
        (
            measured(arm((4_000, 1_000, 5_000)), arm((30_000, 10_000, 60_000))),
            "sentiments",
            "40% negative, 10% neutral",
        ),
        (measured(compared=500, agreed=300), "agreement", "300 of 500"),
        (measured(compared=30, agreed=3), "agreement", "3 of 30"),
        (measured(findings=("v1_better",)), "accuracy", "v2 is less accurate than v1"),
        (measured(findings=("sample_ratio_mismatch",)), "split", "not split as the weights say"),
    ],
)
def test_guardrail_fails_for_its_own_reason(found: RolloutMetrics, name: str, text: str) -> None:
    [result] = failed(found)
    assert result.name == name
    assert text in result.sentence


@pytest.mark.parametrize(
    ("compared", "agreed", "is_shadowed", "state"),
    [
        (0, 0, True, "pending"),  # a schedule went on to its end while 0 of 3 agreed
        (3, 0, True, "pending"),
        (29, 29, True, "pending"),
        (30, 30, True, "pass"),
        (30, 3, True, "fail"),
        (0, 0, False, "pass"),
        (3, 0, False, "pass"),  # of an earlier step, and no more will come
        (30, 3, False, "fail"),
    ],
)
def test_agreement_waits_for_as_many_texts_as_shadow_traffic_will_compare(
    compared: int, agreed: int, is_shadowed: bool, state: str
) -> None:
    found = measured(compared=compared, agreed=agreed)
    results = evaluate("v1", Guardrails(), found, is_shadowed=is_shadowed)
    assert {result.name: result.state for result in results}["agreement"] == state


@pytest.mark.parametrize(
    ("shadow_percent", "predict_weights", "is_shadowed"),
    [
        (0, None, False),
        (10, None, True),
        (10, Weights(v1=1, v2=99), True),
        (10, Weights(v1=0, v2=100), False),  # the champion answers nothing that could be compared
    ],
)
def test_policy_is_shadowed_while_the_champion_answers_texts(
    shadow_percent: float, predict_weights: Weights | None, is_shadowed: bool
) -> None:
    policy = RolloutPolicy(shadow_percent=shadow_percent, predict_weights=predict_weights)
    assert policy.is_shadowed == is_shadowed


@pytest.mark.parametrize(
    ("challenger", "champion", "named"),
    [
        (arm((30, 0, 70)), arm((40, 0, 60)), "(30% negative, 70% positive)"),
        (arm((30, 0, 70)), arm((40, 10, 50)), "(30% negative, 0% neutral, 70% positive)"),
        (arm((40, 10, 50)), arm((30, 0, 70)), "(30% negative, 0% neutral, 70% positive)"),
        (NOTHING, NOTHING, "(no answers)"),
    ],
)
def test_sentence_names_the_sentiments_that_either_version_has(
    challenger: ArmCounts, champion: ArmCounts, named: str
) -> None:
    results = evaluate("v1", Guardrails(), measured(challenger, champion))
    [sentence] = [result.sentence for result in results if result.name == "sentiments"]
    assert named in sentence


ONE_GROUP = {3: 40}  # 40 failures of a single subject
BUSY_SUBJECT = {OUTCOMES * 5: 400}


@pytest.mark.parametrize(
    "found",
    [
        measured(arm((3, 1, 5), failed=1)),  # a single failure
        measured(arm((0, 0, 1), failed=1)),
        measured(arm((0, 0, 2), failed=2)),
        measured(arm((1, 1, 2), failed=1)),
        measured(arm((0, 0, 0), failed=29)),  # below min_predictions
        measured(arm(failed=12)),  # just above the limit
        measured(arm(failed=60), arm(failed=60)),  # a burst that hits both
        measured(lately=arm((10, 0, 0), 30), lately_champion=arm((100, 0, 0), 300)),
        measured(champion=NOTHING, lately=arm((60, 0, 0), 40)),
        measured(replace(arm(), outcomes={**arm().outcomes, **ONE_GROUP})),
        measured(replace(arm(), outcomes={**arm().outcomes, **BUSY_SUBJECT})),
        measured(arm(slow=60)),
        measured(arm(slow_ms=45.0, slow=100), arm(slow_ms=40.0, slow=100)),  # 12 % slower
        measured(arm(slow=300), arm(slow=300)),  # a load that hits both
        measured(arm(slow_ms=14.5, slow=400), arm(slow_ms=10.0)),  # by less than 5 ms
        measured(arm(slow_ms=400.0, slow=20, computed=20)),  # below min_predictions
        measured(arm(slow=0, computed=0)),
        measured(arm(slow_ms=400.0, slow=100), arm(computed=20, slow=1)),
        measured(arm((45, 10, 45)), arm((300, 100, 600))),  # PSI 0.1 of 100 texts is chance
        measured(arm((460, 100, 440)), findings=("v2_better",)),
        measured(NOTHING),
        measured(strata=()),
        measured(compared=29, agreed=2),  # below min_predictions
        measured(compared=0, agreed=0),
        measured(findings=()),
    ],
)
def test_difference_within_chance_fails_no_guardrail(found: RolloutMetrics) -> None:
    assert failed(found) == []


def test_challenger_that_labels_call_better_keeps_its_other_sentiments() -> None:
    other = arm((4_000, 1_000, 5_000)), arm((30_000, 10_000, 60_000))
    [result] = failed(measured(*other))
    assert result.name == "sentiments"
    assert failed(measured(*other, findings=("v2_better",))) == []


def test_guardrails_are_pending_below_min_predictions() -> None:
    few = measured(arm((9, 3, 17)))
    assert {states(few)[name] for name in ("errors", "sentiments")} == {"pending"}
    enough = states(few, Guardrails(min_predictions=29))
    assert {enough[name] for name in ("errors", "sentiments")} == {"pass"}


def test_worst_stratum_decides() -> None:
    [good], [bad] = measured().strata, measured(arm(failed=60)).strata
    for strata in ((good, bad), (bad, good)):
        assert [result.name for result in failed(measured(strata=strata))] == ["errors"]


def test_guardrails_compare_the_challenger_to_the_champion() -> None:
    slow: Mapping[Version, ArmCounts] = {"v1": arm(slow=200, slow_ms=60), "v2": arm()}
    slow_v1 = measured(strata=(StratumCounts(slow, dict.fromkeys(VERSIONS, NOTHING)),))
    found = replace(slow_v1, findings=("v2_better",))
    assert {result.name for result in failed(found, champion="v2")} == {"latency", "accuracy"}
    assert failed(found) == []


def test_accuracy_passes_if_judge_accuracy_is_off() -> None:
    limits = Guardrails(judge_accuracy=False)
    assert states(measured(findings=("v1_better",)), limits)["accuracy"] == "pass"
