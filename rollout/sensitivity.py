"""The smallest differences that each step of a schedule will notice, at the traffic of late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.types import ARM_GROUPS
from rollout.policy import RolloutPolicy

# The champion's shares that the differences are added to.
USUAL_ERRORS = 0.002
USUAL_MIX = (0.3, 0.1, 0.6)
_PRECISION = 0.0005


@dataclass(frozen=True, slots=True)
class StepSensitivity:
    """The differences that half of all rollouts notice by the end of a step; null: none.

    `error_increase` is a difference of shares, `sentiment_shift` that of a sentiment's share.
    """

    percent: float
    challenger_texts: int
    error_increase: float | None
    sentiment_shift: float | None


def sensitivities(policy: RolloutPolicy, texts_per_second: float) -> list[StepSensitivity]:
    """What each step of the schedule notices, by the functions that judge.

    Call it in a thread: its first call imports SciPy for 0.5 s.
    """
    schedule, limits = policy.schedule, policy.guardrails
    if schedule is None or limits is None:
        return []
    return [
        _of_step(
            percent,
            texts_per_second * schedule.hold_seconds,
            limits.min_predictions,
            limits.max_error_rate_increase,
            limits.max_sentiment_drift,
        )
        for percent in schedule.steps
    ]


def _of_step(
    percent: float, texts: float, min_predictions: int, max_increase: float, max_drift: float
) -> StepSensitivity:
    import numpy as np

    from stats.exceedance import failures_exceed, psi_at_least  # imports SciPy

    challenger, champion = texts * percent / 100, texts * (1 - percent / 100)

    def dealt(total: float, *shares: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Texts by group and cell, dealt evenly."""
        return np.tile(np.array(shares) * total / ARM_GROUPS, (ARM_GROUPS, 1))

    def sees_errors(more: float) -> bool:
        now = USUAL_ERRORS + more
        arms = (
            dealt(champion, USUAL_ERRORS, 1 - USUAL_ERRORS),
            dealt(challenger, now, 1 - now),
        )
        return bool(failures_exceed(*arms, max_increase))

    def sees_sentiments(shift: float) -> bool:
        negative, neutral, positive = USUAL_MIX
        arms = (
            dealt(champion, *USUAL_MIX),
            dealt(challenger, negative + shift, neutral, positive - shift),
        )
        return bool(psi_at_least(*arms) > max_drift)

    is_enough = challenger >= min_predictions and champion > 0
    return StepSensitivity(
        percent,
        round(challenger),
        _smallest(sees_errors, 0.99) if is_enough else None,
        _smallest(sees_sentiments, USUAL_MIX[2] - 0.001) if is_enough else None,
    )


def _smallest(sees: Callable[[float], bool], most: float) -> float | None:
    if not sees(most):
        return None
    low, high = 0.0, most
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return round(high, 4)
