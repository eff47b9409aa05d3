"""Renders a rollout for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

COLOUR_OF_STATE = {"pass": "green", "pending": "yellow", "fail": "red"}
BAR_CELLS = 20


def status_view(
    rollout: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], *, now: datetime
) -> RenderableType:
    """Roles, shares and models, the schedule and the guardrails."""
    parts: list[RenderableType] = [_head(rollout), _versions(rollout, models)]
    if rollout["policy"]["schedule"] is not None:
        parts.append(_schedule(rollout, now))
    if rollout["guardrails"]:
        parts.append(_guardrails(rollout["guardrails"]))
    return Group(*parts)


def _head(rollout: Mapping[str, Any]) -> Text:
    when = datetime.fromisoformat(rollout["created_at"])
    head = Text(f"policy {rollout['policy_version']}", style="bold")
    head.append(
        f"  {rollout['action']} by {rollout['author']}, {when:%Y-%m-%d %H:%M:%S} UTC: "
        f"{rollout['reason']}",
        style="not bold",
    )
    if rollout["frozen"]:
        head.append("\nPostgreSQL does not answer: this policy stays active", style="bold red")
    return head


def _versions(rollout: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> Table:
    policy = rollout["policy"]
    columns = ("", "role", "/predict/ab", "/predict", "model", "revision", "engine", "")
    table = Table(*columns, box=None, pad_edge=False)
    for version, model in models.items():
        role = "champion" if version == rollout["champion"] else "challenger"
        weights = policy["predict_weights"]
        of_predict = weights[version] if weights else 100 * (role == "champion")
        shadow = policy["shadow_percent"]
        note = f"shadow of {shadow:g} %" if role == "challenger" and shadow else ""
        table.add_row(
            version, role, f"{policy['ab_weights'][version]:g} %", f"{of_predict:g} %",
            model["tag"] or "-", model["revision"] or "-", model["engine"] or "-", note,
        )  # fmt: skip
        if model["loading"]:
            table.add_row("", "", "", "", Text(f"loading {model['loading']}", "yellow"))
        if model["load_error"]:
            table.add_row("", "", "", "", Text(f"refused: {model['load_error']}", "red"))
    return table


def _schedule(rollout: Mapping[str, Any], now: datetime) -> Text:
    schedule, current = rollout["policy"]["schedule"], rollout["policy"]["progress"]["step"]
    text = Text("schedule  ")
    for number, percent in enumerate(schedule["steps"]):
        style = "bold reverse" if number == current else "dim" if number > current else ""
        text.append(f" {percent:g} % ", style)
    left = (datetime.fromisoformat(rollout["step_ends"]) - now).total_seconds()
    held = min(1.0, max(0.0, 1 - left / schedule["hold_seconds"]))
    done = round(held * BAR_CELLS)
    bar = "━" * done + "╌" * (BAR_CELLS - done)
    text.append(f"  {bar} {f'{left:.0f} s left' if left > 0 else 'held; waiting for guardrails'}")
    return text


def _guardrails(guardrails: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("guardrail", "", "", box=None, pad_edge=False)
    for guardrail in guardrails:
        state = Text(guardrail["state"], COLOUR_OF_STATE[guardrail["state"]])
        table.add_row(guardrail["name"], state, escape(guardrail["sentence"]))
    return table


def changes_table(changes: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Each changed field before and after."""
    if not changes:
        return Text("nothing changes")
    table = _folding_table("field", "before", "after")
    for change in changes:
        table.add_row(change["field"], _short(change["before"]), _short(change["after"]))
    return table


def steps_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    """The smallest differences that the guardrails notice in each step."""
    table = Table("step", "texts", "errors", "sentiments", box=None, pad_edge=False)
    for step in steps:
        noticed = (step["error_increase"], step["sentiment_shift"])
        table.add_row(
            f"{step['percent']:g} %", f"{step['challenger_texts']:,}",
            *("none" if least is None else f"from +{100 * least:.1f} points" for least in noticed),
        )  # fmt: skip
    return table


def history_table(policies: Sequence[Mapping[str, Any]]) -> Table:
    """The policies with author, time, reason and changes."""
    table = _folding_table("policy", "when (UTC)", "who", "what", "why", "changed")
    for policy in policies:
        when = datetime.fromisoformat(policy["created_at"])
        changed = ", ".join(
            f"{change['field']} {_short(change['before'])} → {_short(change['after'])}"
            for change in policy["changes"]
        )
        table.add_row(
            str(policy["policy_version"]), f"{when:%Y-%m-%d %H:%M:%S}", escape(policy["author"]),
            policy["action"], escape(policy["reason"]), escape(changed),
        )  # fmt: skip
    return table


def _folding_table(*names: str) -> Table:
    columns = (Column(name, overflow="fold") for name in names)
    return Table(*columns, box=None, pad_edge=False)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
