"""Whether the challenger may go on: each guardrail is kept, broken, or has too little to judge by.

Shares are judged by their Wilson intervals (Wilson, 1927), so that a breach is more than chance:
the end of the interval that speaks for the challenger has to be beyond the limit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from core.types import Version
from rollout.arm_metrics import Evidence
from rollout.policy import Guardrails, other

GuardrailName = Literal["errors", "latency", "sentiments", "agreement", "accuracy", "split"]
State = Literal["kept", "waiting", "broken"]

# The challenger is looked at every few seconds: 1 in 10,000 looks may be wrong.
CONFIDENCE = 0.9998
# Whatever the ratio: nobody notices less.
LEAST_LATENCY_MS = 5.0
# Past the 95th percentile.
SLOWEST_SHARE = 0.05


class GuardrailResult(NamedTuple):
    """What one guardrail says, in a sentence."""

    name: GuardrailName
    state: State
    sentence: str


def judge(champion: Version, limits: Guardrails, evidence: Evidence) -> list[GuardrailResult]:
    """Every guardrail. Imports SciPy, half a second the first time: to be called in a thread."""
    challenger = other(champion)
    return [
        _errors(champion, challenger, limits, evidence),
        _latency(champion, challenger, limits, evidence),
        _sentiments(challenger, limits, evidence),
        _agreement(limits, evidence),
        _accuracy(champion, challenger, limits, evidence),
        _split(evidence),
    ]


def _errors(
    champion: Version, challenger: Version, limits: Guardrails, evidence: Evidence
) -> GuardrailResult:
    of_champion, of_challenger = evidence.arms[champion], evidence.arms[challenger]
    asked = of_challenger.answered + of_challenger.failed
    allowed = limits.max_error_rate_increase + _share(
        of_champion.failed, of_champion.answered + of_champion.failed
    )
    sentence = (
        f"{challenger} did not answer {of_challenger.failed:,} of {asked:,} texts; "
        f"{allowed:.2%} are allowed"
    )
    if asked and _interval(of_challenger.failed, asked)[0] > allowed:
        return GuardrailResult("errors", "broken", sentence)
    return GuardrailResult("errors", _kept_from(asked, limits), sentence)


def _latency(
    champion: Version, challenger: Version, limits: Guardrails, evidence: Evidence
) -> GuardrailResult:
    before, now = evidence.arms[champion], evidence.arms[challenger]
    if now.p95_ms is None or before.p95_ms is None:
        return GuardrailResult("latency", "kept", "nothing was computed by both versions")
    sentence = (
        f"{challenger} takes {now.p95_ms:.0f} ms (p95 of {now.computed:,} computed answers), "
        f"{champion} {before.p95_ms:.0f} ms; {limits.max_latency_ratio:g} times that is allowed"
    )
    # If one in twenty may be slower than that, more than chance are: its p95 is beyond the limit.
    limit_ms = max(limits.max_latency_ratio * before.p95_ms, before.p95_ms + LEAST_LATENCY_MS)
    slower = now.slower_than(limit_ms)
    enough = before.computed >= limits.min_predictions
    if enough and _interval(slower, now.computed)[0] > SLOWEST_SHARE:
        return GuardrailResult("latency", "broken", sentence)
    return GuardrailResult("latency", "kept", sentence)


def _sentiments(challenger: Version, limits: Guardrails, evidence: Evidence) -> GuardrailResult:
    psi, noise = evidence.sentiment_psi, evidence.sentiment_psi_noise
    if psi is None or noise is None:
        return GuardrailResult("sentiments", "kept", "nothing was answered by both versions")
    sentence = (
        f"the sentiments of {challenger} are {psi:.2f} (PSI) from the champion's; "
        f"{limits.max_sentiment_drift:g} is allowed"
    )
    if evidence.arms[challenger].answered < limits.min_predictions:
        return GuardrailResult("sentiments", "waiting", sentence)
    broken = psi > max(limits.max_sentiment_drift, noise)
    return GuardrailResult("sentiments", "broken" if broken else "kept", sentence)


def _agreement(limits: Guardrails, evidence: Evidence) -> GuardrailResult:
    if not evidence.compared:
        return GuardrailResult("agreement", "kept", "no text was asked of both versions")
    sentence = (
        f"both say the same of {evidence.agreed:,} of {evidence.compared:,} texts; "
        f"{limits.min_agreement:.0%} are asked for"
    )
    if _interval(evidence.agreed, evidence.compared)[1] < limits.min_agreement:
        return GuardrailResult("agreement", "broken", sentence)
    return GuardrailResult("agreement", "kept", sentence)


def _accuracy(
    champion: Version, challenger: Version, limits: Guardrails, evidence: Evidence
) -> GuardrailResult:
    if not limits.judge_accuracy:
        return GuardrailResult("accuracy", "kept", "not judged")
    if f"{champion}_better" in evidence.findings:
        sentence = f"{challenger} is less accurate than {champion}, as /analytics/ab tells"
        return GuardrailResult("accuracy", "broken", sentence)
    return GuardrailResult("accuracy", "kept", f"nothing says that {challenger} is less accurate")


def _split(evidence: Evidence) -> GuardrailResult:
    if "sample_ratio_mismatch" in evidence.findings:
        sentence = "subjects were not dealt out as the weights say, as /analytics/ab tells"
        return GuardrailResult("split", "broken", sentence)
    return GuardrailResult("split", "kept", "subjects are dealt out as the weights say")


def _kept_from(count: int, limits: Guardrails) -> State:
    return "kept" if count >= limits.min_predictions else "waiting"


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0


def _interval(count: int, of: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
