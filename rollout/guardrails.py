"""Guardrails: each passes, fails, or is pending while it has too little data.

Champion and challenger are compared over texts that either might have answered, in the same
windows, by an interval of their difference (`stats.exceedance`). So a burst or a load that hits
both is no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from core.types import SENTIMENTS, Version
from rollout.policy import Guardrails, other
from stats.arm_metrics import (
    COMPARED_TOKENS,
    LATENCY_VALUES,
    ArmCounts,
    RolloutMetrics,
    StratumCounts,
)

GuardrailName = Literal["errors", "latency", "sentiments", "agreement", "accuracy", "split"]
State = Literal["pass", "pending", "fail"]

# Of the agreement, which is looked at every few seconds: 1 in 10,000 looks may fail by chance.
CONFIDENCE = 0.9998
# A smaller difference never fails, whatever the ratio: no user notices it.
LEAST_LATENCY_MS = 5.0


class GuardrailResult(NamedTuple):
    """The state of one guardrail, and a sentence that explains it."""

    name: GuardrailName
    state: State
    sentence: str


class _Rollout(NamedTuple):
    """What the guardrails compare."""

    champion: Version
    challenger: Version
    limits: Guardrails
    measured: RolloutMetrics
    is_shadowed: bool


class _Arms(NamedTuple):
    """Champion and challenger in one stratum."""

    champion: ArmCounts
    challenger: ArmCounts


_Finding = tuple[State, str]
_STATES: tuple[State, ...] = ("fail", "pending", "pass")


def evaluate(
    champion: Version, limits: Guardrails, measured: RolloutMetrics, *, is_shadowed: bool = False
) -> list[GuardrailResult]:
    """Evaluate every guardrail. Call it in a thread: its first call imports SciPy for 0.5 s.

    `is_shadowed` says whether texts that the champion answers go to the challenger too.
    """
    rollout = _Rollout(champion, other(champion), limits, measured, is_shadowed)
    return [GuardrailResult(name, *check(rollout)) for name, check in _CHECKS.items()]


def _of_strata(rollout: _Rollout, check: Callable[[_Rollout, StratumCounts], _Finding]) -> _Finding:
    """The worst finding of the strata."""
    found = [check(rollout, stratum) for stratum in rollout.measured.strata]
    if not found:
        return "pass", "no text might have been answered by either version"
    return min(found, key=lambda finding: _STATES.index(finding[0]))


def _arms(rollout: _Rollout, window: Mapping[Version, ArmCounts]) -> _Arms:
    return _Arms(window[rollout.champion], window[rollout.challenger])


def _errors(rollout: _Rollout, stratum: StratumCounts) -> _Finding:
    from stats.exceedance import failures_exceed, failures_jump, failures_of  # imports SciPy

    limits = rollout.limits
    for window, exceeds, when in (
        (stratum.lately, failures_jump, " in the last minutes"),
        (stratum.step, failures_exceed, ""),
    ):
        arms = _arms(rollout, window)
        sentence = (
            f"{rollout.challenger} did not answer {arms.challenger.failed:,} of "
            f"{arms.challenger.texts:,} texts{when}, {rollout.champion} {arms.champion.failed:,} "
            f"of {arms.champion.texts:,}; {limits.max_error_rate_increase:.2%} more are allowed"
        )
        champion, challenger = failures_of(arms.champion), failures_of(arms.challenger)
        is_enough = arms.challenger.texts >= limits.min_predictions
        if is_enough and exceeds(champion, challenger, limits.max_error_rate_increase):
            return "fail", sentence
    return _if_enough(rollout, arms.challenger.texts), sentence


def _latency(rollout: _Rollout, stratum: StratumCounts) -> _Finding:
    import numpy as np

    from stats.exceedance import latency_exceeds  # imports SciPy

    limits = rollout.limits
    arms = _arms(rollout, stratum.step)
    if not arms.champion.computed or not arms.challenger.computed:
        return "pass", "one version has not computed any answer"
    champion, challenger = (np.array(arm.latency_table(), dtype=np.float64) for arm in arms)
    slow = latency_exceeds(
        champion, challenger, np.array(LATENCY_VALUES), limits.max_latency_ratio, LEAST_LATENCY_MS
    )
    sentence = (
        f"{rollout.challenger} takes longer than {slow.limit:.0f} ms ({COMPARED_TOKENS} tokens of "
        f"a longer text), {limits.max_latency_ratio:g} times the {slow.quantile:.0f} ms (p95) of "
        f"{rollout.champion}, for {slow.challenger_share:.1%} of {arms.challenger.computed:,} "
        "computed answers; 5% are allowed"
    )
    if min(arm.computed for arm in arms) < limits.min_predictions:
        # Answers of the cache take no time worth comparing, and a rollout must not wait for others.
        return "pass", sentence
    return "fail" if slow.exceeds else "pass", sentence


def _sentiments(rollout: _Rollout, stratum: StratumCounts) -> _Finding:
    from stats.exceedance import psi_at_least, sentiments_of  # imports SciPy

    arms = _arms(rollout, stratum.step)
    answered = arms.challenger.texts - arms.challenger.failed
    least, allowed = (
        float(psi_at_least(sentiments_of(arms.champion), sentiments_of(arms.challenger))),
        rollout.limits.max_sentiment_drift,
    )
    sentence = (
        f"the sentiments of {rollout.challenger} ({_mix(arms.challenger, arms)}) are at least "
        f"{least:.3f} (PSI) from those of {rollout.champion} ({_mix(arms.champion, arms)}); "
        f"{allowed:g} is allowed"
    )
    if f"{rollout.challenger}_better" in rollout.measured.findings:
        return "pass", f"{sentence}, but labels show that {rollout.challenger} is better"
    state = _if_enough(rollout, answered)
    return "fail" if state == "pass" and least > allowed else state, sentence


def _mix(arm: ArmCounts, arms: _Arms) -> str:
    """The shares of the sentiments that either arm has, because not every model has neutral."""
    totals = _sentiment_totals(arm)
    answered = max(sum(totals), 1)
    known = [max(pair) for pair in zip(*map(_sentiment_totals, arms), strict=True)]
    shares = [
        f"{total / answered:.0%} {sentiment}"
        for sentiment, total, most in zip(SENTIMENTS, totals, known, strict=True)
        if most
    ]
    return ", ".join(shares) or "no answers"


def _sentiment_totals(arm: ArmCounts) -> list[int]:
    """Answers of each sentiment, in the order of SENTIMENTS."""
    return [sum(column) for column in zip(*arm.outcome_table(), strict=True)][: len(SENTIMENTS)]


def _agreement(rollout: _Rollout) -> _Finding:
    from stats.wilson import wilson_interval  # imports SciPy

    agreed, compared = rollout.measured.agreed, rollout.measured.compared
    required = rollout.limits.min_agreement
    if not compared and not rollout.is_shadowed:
        return "pass", "there is no shadow traffic, which both versions classify"
    sentence = (
        f"both versions agree on {agreed:,} of {compared:,} texts of shadow traffic; "
        f"{required:.0%} are required"
    )
    share = wilson_interval(agreed, compared, CONFIDENCE)
    is_low = share is not None and share.high < required
    state = _if_enough(rollout, compared)
    if state == "pending":
        # What was shadowed before says too little, and no more of it will come.
        return state if rollout.is_shadowed else "pass", sentence
    return "fail" if is_low else "pass", sentence


def _accuracy(rollout: _Rollout) -> _Finding:
    champion, challenger = rollout.champion, rollout.challenger
    if not rollout.limits.judge_accuracy:
        return "pass", "accuracy is not judged"
    if f"{champion}_better" in rollout.measured.findings:
        return "fail", f"{challenger} is less accurate than {champion}, according to /analytics/ab"
    return "pass", f"no test found {challenger} less accurate"


def _split(rollout: _Rollout) -> _Finding:
    if "sample_ratio_mismatch" in rollout.measured.findings:
        return "fail", (
            "subjects are not split as the weights say, according to /analytics/ab; "
            "another salt begins another test"
        )
    return "pass", "subjects are split as the weights say"


def _if_enough(rollout: _Rollout, texts: int) -> State:
    return "pass" if texts >= rollout.limits.min_predictions else "pending"


_CHECKS: Mapping[GuardrailName, Callable[[_Rollout], _Finding]] = {
    "errors": lambda rollout: _of_strata(rollout, _errors),
    "latency": lambda rollout: _of_strata(rollout, _latency),
    "sentiments": lambda rollout: _of_strata(rollout, _sentiments),
    "agreement": _agreement,
    "accuracy": _accuracy,
    "split": _split,
}
