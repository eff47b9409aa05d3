"""What a terminal shows of a rollout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from core.types import VERSIONS
from rollout.policy import RolloutPolicy
from rollout.views import history_view, status_view

ROLLED_BACK: dict[str, Any] = {
    "policy_version": 7,
    "created_at": "2026-11-28T01:06:03Z",
    "action": "guardrail",
    "author": "guardrails",
    "reason": "errors: too many",
    "changes": [{"field": "schedule", "before": {"hold_seconds": 600}, "after": None}],
}


def printed(view: RenderableType) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


@pytest.mark.parametrize("waiting", [["v2"], [], None])
def test_status_says_whose_traffic_is_held_back(waiting: list[str] | None) -> None:
    rollout = ROLLED_BACK | {
        "frozen": False, "policy": RolloutPolicy().model_dump(mode="json"), "champion": "v1",
        "guardrails": None,
    }  # fmt: skip
    if waiting is not None:  # an earlier release does not say
        rollout["waits_for"] = waiting
    models: dict[str, dict[str, Any]] = {
        version: {"tag": "m:1", "revision": "1", "engine": "e", "loading": None, "load_error": None}
        for version in VERSIONS
    }
    shown = " ".join(printed(status_view(rollout, models, now=datetime.now(UTC))).split())
    sentence = "v2 has yet to load the model of this policy, and gets no more traffic than before"
    assert (sentence in shown) == bool(waiting)


def test_history_without_changes_says_so() -> None:
    assert printed(history_view([])) == "Nothing was changed yet: the settings are the policy.\n"


def test_history_says_who_did_what_and_what_is_none() -> None:
    shown = printed(history_view([ROLLED_BACK]))
    assert "policy 7  2026-11-28 01:06:03 UTC  rolled back by a guardrail" in shown
    assert "schedule.hold_seconds: 600 → none" in shown
