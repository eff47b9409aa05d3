"""Renders a rollout for a terminal of 80 columns; nothing is shortened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

COLOUR_OF_STATE = {"pass": "green", "pending": "yellow", "fail": "red"}
BAR_CELLS = 20
# What a change writes down beside what an operator changes.
_BOOKKEEPING = ("progress", "model_generations")
_ACTIONS = {
    "set": "changed",
    "promote": "promoted",
    "roll_back": "rolled back",
    "next_step": "next step",
    "reload": "model loaded",
    "guardrail": "rolled back",
}
# Those who change a policy without being asked.
_AUTHORS = {"guardrails": "a guardrail", "schedule": "its schedule", "settings": "the settings"}


def status_view(
    rollout: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], *, now: datetime
) -> RenderableType:
    """Roles, shares and models, the schedule and the guardrails."""
    parts: list[RenderableType] = [_head(rollout), _versions(rollout, models)]
    parts += _models(models)
    if rollout["policy"]["schedule"] is not None:
        parts.append(_schedule(rollout, now))
    if rollout["guardrails"]:
        parts.append(_guardrails(rollout["guardrails"]))
    return Group(*parts)


def _head(rollout: Mapping[str, Any]) -> Text:
    when = datetime.fromisoformat(rollout["created_at"])
    head = Text(f"policy {rollout['policy_version']}", style="bold")
    head.append(
        f"  {_done(rollout)}, {when:%Y-%m-%d %H:%M:%S} UTC: {rollout['reason']}",
        style="not bold",
    )
    if rollout["frozen"]:
        head.append("\nPostgreSQL does not answer: this policy stays active", style="bold red")
    if waiting := rollout.get("waits_for"):  # a service of an earlier release does not say it
        head.append(
            f"\n{' and '.join(waiting)} has yet to load the model of this policy, and gets no more "
            "traffic than before",
            style="bold yellow",
        )
    return head


def _versions(rollout: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> Table:
    policy = rollout["policy"]
    table = Table("", "role", "/predict/ab", "/predict", "shadow", box=None, pad_edge=False)
    for version in models:
        role = "champion" if version == rollout["champion"] else "challenger"
        weights = policy["predict_weights"]
        of_predict = weights[version] if weights else 100 * (role == "champion")
        shadow = policy["shadow_percent"] if role == "challenger" else 0
        table.add_row(
            version, role, f"{policy['ab_weights'][version]:g}%", f"{of_predict:g}%",
            f"{shadow:g}%" if shadow else "",
        )  # fmt: skip
    return table


def _models(models: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    for version, model in models.items():
        tag, revision = model["tag"] or "no model", model["revision"]
        described = f"{version}  {tag}"
        if revision and not tag.endswith(f":{revision}"):
            described += f", revision {revision}"
        yield Text(f"{described}, on {model['engine']}" if model["engine"] else described)
        if model["loading"]:
            yield _indented(f"loads {model['loading']}", "yellow")
        if model["load_error"]:
            yield _indented(f"refused {model['load_error']}", "red")


def _indented(text: str, style: str) -> Padding:
    return Padding(Text(text, style), (0, 0, 0, 4))


def _schedule(rollout: Mapping[str, Any], now: datetime) -> Text:
    schedule, current = rollout["policy"]["schedule"], rollout["policy"]["progress"]["step"]
    text = Text(f"schedule   {_aim(schedule)}\n          ")
    for number, percent in enumerate(schedule["steps"]):
        style = "bold reverse" if number == current else "dim" if number > current else ""
        text.append(f" {percent:g}% ", style)
    left = (datetime.fromisoformat(rollout["step_ends"]) - now).total_seconds()
    held = min(1.0, max(0.0, 1 - left / schedule["hold_seconds"]))
    done = round(held * BAR_CELLS)
    bar = "━" * done + "╌" * (BAR_CELLS - done)
    remaining = f"{left:.0f} s left" if left > 0 else "held; waiting for guardrails"
    return text.append(f"\n           {bar} {remaining}")


def _aim(schedule: Mapping[str, Any]) -> str:
    end = "promotion" if schedule["promote"] else "no promotion"
    return f"of {' and '.join(schedule['routes'])}, {schedule['hold_seconds']} s a step, then {end}"


def plan_view(policy: Mapping[str, Any]) -> RenderableType:
    """The schedule and the limits of a policy, whether they are new or not."""
    schedule, guardrails = policy["schedule"], policy["guardrails"] or {}
    limits = ", ".join(f"{name} {_as_text(value)}" for name, value in guardrails.items())
    steps = ", ".join(f"{step:g}" for step in schedule["steps"])
    shadow = f"; shadow {policy['shadow_percent']:g}%"
    return Text(f"schedule: {steps}% {_aim(schedule)}{shadow}\nguardrails: {limits or 'none'}")


def _guardrails(guardrails: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("guardrail", "", "", box=None, pad_edge=False)
    for guardrail in guardrails:
        state = Text(guardrail["state"], COLOUR_OF_STATE[guardrail["state"]])
        table.add_row(guardrail["name"], state, Text(guardrail["sentence"]))
    return table


def changes_table(changes: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Each changed field before and after."""
    shown = list(_shown(changes))
    if not shown:
        return Text("nothing changes")
    columns = (Column(name, overflow="fold") for name in ("field", "before", "after"))
    table = Table(*columns, box=None, pad_edge=False)
    for field, before, after in shown:
        table.add_row(field, Text(_as_text(before)), Text(_as_text(after)))
    return table


def steps_view(steps: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The smallest differences that the guardrails notice in each step."""
    table = Table("step", "texts", "errors", "sentiments", box=None, pad_edge=False)
    for step in steps:
        noticed = (step["error_increase"], step["sentiment_shift"])
        table.add_row(
            f"{step['percent']:g}%", f"{step['challenger_texts']:,}",
            *("nothing" if least is None else f"+{100 * least:.1f} points" for least in noticed),
        )  # fmt: skip
    return Group(Text("what the guardrails notice, at the traffic of the last hour:"), table)


def history_view(policies: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The policies with author, time, reason and changes."""
    if not policies:
        return Text("Nothing was changed yet: the settings are the policy.")
    return Group(*(_entry(policy) for policy in policies))


def _entry(policy: Mapping[str, Any]) -> RenderableType:
    when = datetime.fromisoformat(policy["created_at"])
    head = Text(f"policy {policy['policy_version']}", style="bold")
    head.append(f"  {when:%Y-%m-%d %H:%M:%S} UTC  {_done(policy)}", "")
    table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
    table.add_row("", Text(policy["reason"]))
    for field, before, after in _shown(policy["changes"]):
        table.add_row("", Text(f"{field}: {_as_text(before)} → {_as_text(after)}", "dim"))
    return Group(head, table)


def _shown(changes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Field, value before and after of each change, with the fields of objects one by one."""
    for change in changes:
        before, after = change["before"], change["after"]
        if change["field"].partition(".")[0] in _BOOKKEEPING:
            continue
        if not isinstance(before, dict) and not isinstance(after, dict):
            yield change["field"], before, after
            continue
        old, new = ({} if value is None else value for value in (before, after))
        for name in {**old, **new}:
            yield f"{change['field']}.{name}", old.get(name), new.get(name)


def _done(policy: Mapping[str, Any]) -> str:
    """What was done, and by whom."""
    action = _ACTIONS.get(policy["action"], policy["action"])
    return f"{action} by {_AUTHORS.get(policy['author'], policy['author'])}"


def _as_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
