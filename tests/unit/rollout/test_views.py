"""What a terminal shows of a rollout."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from rollout.views import history_view

ROLLED_BACK: dict[str, Any] = {
    "policy_version": 7,
    "created_at": "2026-11-28T01:06:03Z",
    "action": "guardrail",
    "author": "guardrails",
    "reason": "errors: too many",
    "changes": [{"field": "schedule", "before": {"hold_seconds": 600}, "after": None}],
}


def printed(policies: list[dict[str, Any]]) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(history_view(policies))
    return capture.get()


def test_history_without_changes_says_so() -> None:
    assert printed([]) == "Nothing was changed yet: the settings are the policy.\n"


def test_history_says_who_did_what_and_what_is_none() -> None:
    shown = printed([ROLLED_BACK])
    assert "policy 7  2026-11-28 01:06:03 UTC  rolled back by a guardrail" in shown
    assert "schedule.hold_seconds: 600 → none" in shown
