"""A bad challenger is rolled back and a good one is promoted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.served.derived_models import RARE_WORD, Tags
from tests.served.rollouts import GRACE_SECONDS, Admin, requests
from tests.serving import ServedBento
from tests.waiting import until

ROLLBACK_SECONDS = 30.0
# Enough for a guardrail to see in its first seconds; more would only be computed.
CLIENTS = 4


def challenge(number: int) -> tuple[str, dict[str, Any]]:
    """Subjects, and texts of which one in three has a word that one of the models cannot take."""
    word = RARE_WORD if number % 3 == 0 else "film"
    text = f"I have seen {number} of them, and this {word} is among the {number % 9} best so far. "
    text += "What came before it was long, and what came after it was longer still."
    if number % 2:
        return "/predict/ab", {"text": text, "subject": f"user-{number}"}
    return "/predict", {"text": text}


# The others are not what is tried.
LAX = {"min_predictions": 30, "max_latency_ratio": 100, "max_sentiment_drift": 10}


@pytest.mark.parametrize(
    ("which", "reason", "limits"),
    [
        ("flipped", "agreement: both versions agree on ", {}),
        ("slow", "latency: v2 takes ", {"max_latency_ratio": 1.5}),
        ("raising", "errors: v2 did not answer ", {}),
    ],
)
async def test_bad_challenger_is_rolled_back_with_its_reason(
    bento: ServedBento,
    admin: Admin,
    tags: Tags,
    *,
    which: str,
    reason: str,
    limits: Mapping[str, float],
) -> None:
    await admin.reload("v2", getattr(tags, which))
    await admin.holds("v2", getattr(tags, which))
    await admin.change(
        changes={
            "schedule": {"steps": [50], "hold_seconds": 3_600},
            "guardrails": {**LAX, **limits},
            "shadow_percent": 100 if which == "flipped" else 0,
        }
    )
    began = time.monotonic()
    async with requests(bento, challenge, CLIENTS):
        status = await admin.status_when(
            lambda sent: sent["action"] == "guardrail", ROLLBACK_SECONDS
        )
    print(f"{which}: taken back after {time.monotonic() - began:.1f} s: {status['reason']}")  # noqa: T201
    assert status["author"] == "guardrails"
    assert status["reason"].startswith(reason)
    assert (status["policy"]["ab_weights"], status["policy"]["schedule"]) == (
        {"v1": 100, "v2": 0}, None,
    )  # fmt: skip
    assert bento.metric("rollout_changes_total", action="guardrail") >= 1
    async with requests(bento, challenge, CLIENTS) as sent:
        await asyncio.sleep(GRACE_SECONDS)
        sent.answered.clear()
        await until(lambda: len(sent.answered) >= 50, seconds=30)
    assert {one.version for one in sent.answered} == {"v1"}


async def test_good_challenger_advances_by_schedule_and_is_promoted(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    # The same weights, so that only its role tells it apart.
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    schedule = {"steps": [50, 100], "hold_seconds": 2, "promote": True}
    guardrails = {"min_predictions": 30, "max_latency_ratio": 10}
    await admin.change(changes={"schedule": schedule, "guardrails": guardrails})
    async with requests(bento, challenge, CLIENTS) as sent:
        status = await admin.status_when(
            lambda sent: sent["champion"] == "v2" or sent["action"] == "guardrail", 60
        )
    assert sent.refused == []
    assert status["champion"] == "v2", status["reason"]
    actions = [entry["action"] for entry in (await admin.history())[:3]]
    assert actions == ["next_step", "next_step", "set"]
    assert status["policy"]["ab_weights"] == {"v1": 0, "v2": 100}
