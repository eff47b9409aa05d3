"""Guardrails: each passes, fails, or is pending while it has too little data.

Shares are compared by their Wilson intervals, so that a failure is more than chance: the end of
the interval that favours the challenger has to be past the limit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from core.types import Version
from rollout.arm_metrics import RolloutMetrics
from rollout.policy import Guardrails, other

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


def evaluate(
    champion: Version, limits: Guardrails, measured: RolloutMetrics
) -> list[GuardrailResult]:
    """Evaluate every guardrail. Call it in a thread: its first call imports SciPy for 0.5 s."""
    challenger = other(champion)
    return [
        _errors(champion, challenger, limits, measured),
        _latency(champion, challenger, limits, measured),
        _sentiments(challenger, limits, measured),
        _agreement(limits, measured),
        _accuracy(champion, challenger, limits, measured),
        _split(measured),
    ]


def _errors(
    champion: Version, challenger: Version, limits: Guardrails, measured: RolloutMetrics
) -> GuardrailResult:
    of_champion, of_challenger = measured.arms[champion], measured.arms[challenger]
    requested = of_challenger.answered + of_challenger.failed
    of_both = of_champion.answered + of_champion.failed
    champion_share = of_champion.failed / of_both if of_both else 0.0
    allowed = limits.max_error_rate_increase + champion_share
    sentence = (
        f"{challenger} did not answer {of_challenger.failed:,} of {requested:,} texts; "
        f"{allowed:.2%} are allowed"
    )
    if _surely_above(allowed, of_challenger.failed, requested):
        return GuardrailResult("errors", "fail", sentence)
    state: State = "pass" if requested >= limits.min_predictions else "pending"
    return GuardrailResult("errors", state, sentence)


def _latency(
    champion: Version, challenger: Version, limits: Guardrails, measured: RolloutMetrics
) -> GuardrailResult:
    before, now = measured.arms[champion], measured.arms[challenger]
    if now.p95_ms is None or before.p95_ms is None:
        return GuardrailResult("latency", "pass", "one version has not computed any answer")
    sentence = (
        f"{challenger} takes {now.p95_ms:.0f} ms (p95 of {now.computed:,} computed answers), "
        f"{champion} {before.p95_ms:.0f} ms; {limits.max_latency_ratio:g} times that is allowed"
    )
    # If more than 1 in 20 answers are slower than the limit, so is the challenger's p95.
    limit_ms = max(limits.max_latency_ratio * before.p95_ms, before.p95_ms + LEAST_LATENCY_MS)
    slower = now.slower_than(limit_ms)
    enough = before.computed >= limits.min_predictions
    if enough and _surely_above(SLOWEST_SHARE, slower, now.computed):
        return GuardrailResult("latency", "fail", sentence)
    return GuardrailResult("latency", "pass", sentence)


def _sentiments(
    challenger: Version, limits: Guardrails, measured: RolloutMetrics
) -> GuardrailResult:
    psi, noise = measured.sentiment_psi, measured.sentiment_psi_noise
    if psi is None or noise is None:
        return GuardrailResult("sentiments", "pass", "one version has not answered any text")
    sentence = (
        f"the sentiments of {challenger} are {psi:.2f} (PSI) from the champion's; "
        f"{limits.max_sentiment_drift:g} is allowed"
    )
    if measured.arms[challenger].answered < limits.min_predictions:
        return GuardrailResult("sentiments", "pending", sentence)
    fails = psi > max(limits.max_sentiment_drift, noise)
    return GuardrailResult("sentiments", "fail" if fails else "pass", sentence)


def _agreement(limits: Guardrails, measured: RolloutMetrics) -> GuardrailResult:
    if not measured.compared:
        return GuardrailResult("agreement", "pass", "no text was classified by both versions")
    sentence = (
        f"both versions agree on {measured.agreed:,} of {measured.compared:,} texts; "
        f"{limits.min_agreement:.0%} are required"
    )
    if _surely_below(limits.min_agreement, measured.agreed, measured.compared):
        return GuardrailResult("agreement", "fail", sentence)
    return GuardrailResult("agreement", "pass", sentence)


def _accuracy(
    champion: Version, challenger: Version, limits: Guardrails, measured: RolloutMetrics
) -> GuardrailResult:
    if not limits.judge_accuracy:
        return GuardrailResult("accuracy", "pass", "accuracy is not judged")
    if f"{champion}_better" in measured.findings:
        sentence = f"{challenger} is less accurate than {champion}, according to /analytics/ab"
        return GuardrailResult("accuracy", "fail", sentence)
    return GuardrailResult("accuracy", "pass", f"no test found {challenger} less accurate")


def _split(measured: RolloutMetrics) -> GuardrailResult:
    if "sample_ratio_mismatch" in measured.findings:
        sentence = "subjects are not split as the weights say, according to /analytics/ab"
        return GuardrailResult("split", "fail", sentence)
    return GuardrailResult("split", "pass", "subjects are split as the weights say")


def _surely_above(limit: float, count: int, of: int) -> bool:
    from stats.wilson import wilson_interval  # imports SciPy

    interval = wilson_interval(count, of, CONFIDENCE)
    return interval is not None and interval.low > limit


def _surely_below(limit: float, count: int, of: int) -> bool:
    from stats.wilson import wilson_interval  # imports SciPy

    interval = wilson_interval(count, of, CONFIDENCE)
    return interval is not None and interval.high < limit
