"""Guardrails: each passes, fails, or is pending while it has too little data.

Shares are compared by their Wilson intervals, so that a failure is more than chance: the end of
the interval that favours the challenger has to be past the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from core.types import Version
from rollout.policy import Guardrails, other
from stats.arm_metrics import RolloutMetrics
from stats.outcomes import Interval

GuardrailName = Literal["errors", "latency", "sentiments", "agreement", "accuracy", "split"]
State = Literal["pass", "pending", "fail"]

# The guardrails are evaluated every few seconds: 1 in 10,000 evaluations may fail by chance.
CONFIDENCE = 0.9998
# A smaller difference never fails, whatever the ratio: no user notices it.
LEAST_LATENCY_MS = 5.0
# By definition, this share of the answers is slower than the 95th percentile.
SLOWEST_SHARE = 0.05


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


def evaluate(
    champion: Version, limits: Guardrails, measured: RolloutMetrics
) -> list[GuardrailResult]:
    """Evaluate every guardrail. Call it in a thread: its first call imports SciPy for 0.5 s."""
    rollout = _Rollout(champion, other(champion), limits, measured)
    return [GuardrailResult(name, *check(rollout)) for name, check in _CHECKS.items()]


def _errors(rollout: _Rollout) -> tuple[State, str]:
    champion = rollout.measured.arms[rollout.champion]
    challenger = rollout.measured.arms[rollout.challenger]
    requested = challenger.answered + challenger.failed
    of_champion = champion.answered + champion.failed
    champion_share = champion.failed / of_champion if of_champion else 0.0
    allowed = rollout.limits.max_error_rate_increase + champion_share
    sentence = (
        f"{rollout.challenger} did not answer {challenger.failed:,} of {requested:,} texts; "
        f"{allowed:.2%} are allowed"
    )
    if _share(challenger.failed, requested).low > allowed:
        return "fail", sentence
    return "pass" if requested >= rollout.limits.min_predictions else "pending", sentence


def _latency(rollout: _Rollout) -> tuple[State, str]:
    limits = rollout.limits
    before = rollout.measured.arms[rollout.champion]
    now = rollout.measured.arms[rollout.challenger]
    if now.p95_ms is None or before.p95_ms is None:
        return "pass", "one version has not computed any answer"
    sentence = (
        f"{rollout.challenger} takes {now.p95_ms:.0f} ms (p95 of {now.computed:,} computed "
        f"answers), {rollout.champion} {before.p95_ms:.0f} ms; {limits.max_latency_ratio:g} times "
        "that is allowed"
    )
    # If more than 1 in 20 answers are slower than the limit, so is the challenger's p95.
    limit_ms = max(limits.max_latency_ratio * before.p95_ms, before.p95_ms + LEAST_LATENCY_MS)
    slower = _share(now.slower_than(limit_ms), now.computed)
    enough = before.computed >= limits.min_predictions
    return "fail" if enough and slower.low > SLOWEST_SHARE else "pass", sentence


def _sentiments(rollout: _Rollout) -> tuple[State, str]:
    psi, noise = rollout.measured.sentiment_psi, rollout.measured.sentiment_psi_noise
    allowed = rollout.limits.max_sentiment_drift
    if psi is None or noise is None:
        return "pass", "one version has not answered any text"
    sentence = (
        f"the sentiments of {rollout.challenger} are {psi:.2f} (PSI) from the champion's; "
        f"{allowed:g} is allowed"
    )
    answered = rollout.measured.arms[rollout.challenger].answered
    if answered < rollout.limits.min_predictions:
        return "pending", sentence
    return "fail" if psi > max(allowed, noise) else "pass", sentence


def _agreement(rollout: _Rollout) -> tuple[State, str]:
    agreed, compared = rollout.measured.agreed, rollout.measured.compared
    required = rollout.limits.min_agreement
    if not compared:
        return "pass", "no text was classified by both versions"
    sentence = (
        f"both versions agree on {agreed:,} of {compared:,} texts; {required:.0%} are required"
    )
    return "fail" if _share(agreed, compared).high < required else "pass", sentence


def _accuracy(rollout: _Rollout) -> tuple[State, str]:
    champion, challenger = rollout.champion, rollout.challenger
    if not rollout.limits.judge_accuracy:
        return "pass", "accuracy is not judged"
    if f"{champion}_better" in rollout.measured.findings:
        return "fail", f"{challenger} is less accurate than {champion}, according to /analytics/ab"
    return "pass", f"no test found {challenger} less accurate"


def _split(rollout: _Rollout) -> tuple[State, str]:
    if "sample_ratio_mismatch" in rollout.measured.findings:
        return "fail", "subjects are not split as the weights say, according to /analytics/ab"
    return "pass", "subjects are split as the weights say"


_CHECKS: Mapping[GuardrailName, Callable[[_Rollout], tuple[State, str]]] = {
    "errors": _errors,
    "latency": _latency,
    "sentiments": _sentiments,
    "agreement": _agreement,
    "accuracy": _accuracy,
    "split": _split,
}


def _share(count: int, of: int) -> Interval:
    """The share of `count`, as an interval; every share is possible of nothing."""
    from stats.wilson import wilson_interval  # imports SciPy

    return wilson_interval(count, of, CONFIDENCE) or Interval(0, 1)
