"""A bad challenger is rolled back and a good one is promoted; tests/prove/faults has others."""

from __future__ import annotations

from tests.served.derived_models import Tags
from tests.served.rollouts import Admin, assert_rolled_back, challenge, requests
from tests.serving import ServedBento


async def test_bad_challenger_is_rolled_back_with_its_reason(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    reason = "agreement: both versions agree on "
    await assert_rolled_back(bento, admin, tags.flipped, reason, shadow_percent=100)


async def test_good_challenger_advances_by_schedule_and_is_promoted(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    # The same weights, so that only its role tells it apart.
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    schedule = {"steps": [50, 100], "hold_seconds": 2, "promote": True}
    guardrails = {"min_predictions": 30, "max_latency_ratio": 10}
    await admin.change(changes={"schedule": schedule, "guardrails": guardrails})
    async with requests(bento, challenge) as sent:
        status = await admin.status_when(
            lambda sent: sent["champion"] == "v2" or sent["action"] == "guardrail", 60
        )
    assert sent.refused == []
    assert status["champion"] == "v2", status["reason"]
    actions = [entry["action"] for entry in (await admin.history())[:3]]
    assert actions == ["next_step", "next_step", "set"]
    assert status["policy"]["ab_weights"] == {"v1": 0, "v2": 100}
