"""Roll a new version out step by step, watch it, and roll it back."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from typer import Argument, Option

from core.command_output import JsonOption, console, emit, fail, note, slow_step
from core.errors import describe_error
from core.small_files import read_small_text
from core.types import Version
from rollout.views import changes_table, history_view, plan_view, status_view, steps_view
from scripts.running import run_command
from scripts.service_options import ServiceGroup, service_options
from web.service_client import ServiceClient

POLL_SECONDS = 1.0
# Loading a model takes seconds, after the batch that the old one computes.
LOAD_SECONDS = 120.0
# A body of the service may have no more.
MAX_CHANGES_CHARACTERS = 4 << 20
BOTH = ("/predict/ab", "/predict")

app = typer.Typer(cls=ServiceGroup, no_args_is_help=True, add_completion=False, help=__doc__)
app.callback(help=__doc__)(service_options)

Reason = Annotated[str, Option("--reason", "-m", help="the reason, for the history")]
DryRun = Annotated[bool, Option("--dry-run", help="print the change without making it")]


@app.command()
def status(
    context: typer.Context,
    *,
    watch: Annotated[bool, Option("--watch", "-w", help="refresh until Ctrl-C")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show shares of traffic, loaded models, the schedule and the guardrails."""
    service: ServiceClient = context.obj
    if watch and as_json:
        raise typer.BadParameter("--watch has no --json: ask again for another document")

    def report() -> dict[str, Any]:
        models = service.models()
        return {
            "rollout": service.call("GET", "/admin/rollout", field="policy"),
            "versions": models,
        }

    def view(found: dict[str, Any]) -> Any:
        return status_view(found["rollout"], found["versions"], now=datetime.now(UTC))

    if not watch:
        with slow_step("waiting for the service"):
            found = report()
        emit(found, lambda: console.print(view(found)))
        return
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            live.update(view(report()), refresh=True)
            time.sleep(POLL_SECONDS)


@app.command(name="set")
def set_policy(
    context: typer.Context,
    changes: Annotated[str, Argument(help="JSON, or @FILE: such as '{\"shadow_percent\": 10}'")],
    reason: Reason,
    *,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Change the given fields of the policy; the others stay."""
    try:
        file = Path(changes[1:]) if changes.startswith("@") else None
        fields = json.loads(read_small_text(file, MAX_CHANGES_CHARACTERS) if file else changes)
    except OSError as error:
        fail(f"CHANGES cannot be read: {describe_error(error)}")
    except (ValueError, RecursionError) as error:
        hint = "" if file else "; @FILE reads it from a file"
        fail(f"CHANGES is not JSON: {error}{hint}")
    if not isinstance(fields, dict):
        fail('CHANGES must be a JSON object, such as {"shadow_percent": 10}')
    _change(context.obj, {"action": "set", "changes": fields}, reason, dry_run=dry_run)


@app.command()
def start(
    context: typer.Context,
    reason: Reason,
    *,
    steps: Annotated[
        str, Option(help="the challenger's percent of traffic at each step")
    ] = "5,25,50,100",
    hold: Annotated[int, Option(help="seconds that each step lasts")] = 3_600,
    route: Annotated[
        list[str] | None,
        Option(
            help="an endpoint whose traffic moves; repeatable",
            show_default="/predict and /predict/ab",
        ),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=VALUE",
            help="a limit, such as max_latency_ratio=1.5; repeatable",
            show_default="those of the active policy, else of docs/rollout.md",
        ),
    ] = None,
    shadow: Annotated[
        float, Option(help="percent of /predict that the challenger answers in shadow")
    ] = 0.0,
    promote: Annotated[
        bool, Option(help="make the challenger champion after the last step")
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Raise the challenger's share step by step, while every guardrail passes."""
    try:
        percents = [float(step) for step in steps.split(",")]
    except ValueError:
        percents = [math.nan]
    if not all(map(math.isfinite, percents)):  # JSON has no other numbers
        fail(f"--steps {steps}: write numbers with commas, such as 5,25,50,100")
    limits = dict(_limit(text) for text in guardrail or ())
    routes = list(dict.fromkeys(route or BOTH))
    schedule = {"steps": percents, "hold_seconds": hold, "routes": routes, "promote": promote}
    changes: dict[str, Any] = {"schedule": schedule, "shadow_percent": shadow}
    service: ServiceClient = context.obj
    if limits:
        active = service.call("GET", "/admin/rollout", field="policy")["policy"]["guardrails"]
        changes["guardrails"] = (active or {}) | limits
    _change(service, {"action": "set", "changes": changes}, reason, dry_run=dry_run)


def _limit(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        message = f"{text}: write NAME=VALUE, such as max_latency_ratio=1.5"
        raise typer.BadParameter(message, param_hint="--guardrail") from None


@app.command()
def promote(
    context: typer.Context,
    reason: Reason,
    *,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Make the challenger champion, with all of the traffic."""
    _change(context.obj, {"action": "promote"}, reason, dry_run=dry_run)


@app.command()
def roll_back(
    context: typer.Context,
    reason: Reason,
    *,
    to: Annotated[
        int | None,
        Option(
            help="an earlier policy, with its models", show_default="all traffic to the champion"
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Move all traffic to the champion, or restore an earlier policy."""
    change = {"action": "roll_back"} | ({} if to is None else {"to_version": to})
    _change(context.obj, change, reason, dry_run=dry_run)


@app.command()
def next_step(
    context: typer.Context,
    reason: Reason,
    *,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Start the next step of the schedule now."""
    _change(context.obj, {"action": "next_step"}, reason, dry_run=dry_run)


@app.command()
def reload(
    context: typer.Context,
    version: Annotated[Version, Argument(help="the version to load it for")],
    tag: Annotated[
        str,
        Argument(help="name:version in the model store, or 'configured' for the configured model"),
    ],
    reason: Reason,
    *,
    as_json: JsonOption = False,
) -> None:
    """Load another model for a version without interruption, and wait until it answers."""
    service: ServiceClient = context.obj
    chosen = None if tag == "configured" else tag
    request = {"version": version, "tag": chosen, "reason": reason}
    policy = service.call("POST", "/admin/models/reload", field="policy_version", json=request)[
        "policy_version"
    ]
    note(f"policy {policy}: {version} loads {tag}")
    deadline = time.monotonic() + LOAD_SECONDS
    with slow_step(f"{version} loads {tag}"):
        while (model := service.models()[version])["observed_generation"] < policy:
            if time.monotonic() > deadline:
                fail(f"{tag} is not loaded after {LOAD_SECONDS:g} s; see /health")
            time.sleep(POLL_SECONDS / 4)
    if model["load_error"]:
        fail(
            f"refused {model['load_error']}; {model['tag']} still answers. Policy {policy} goes on "
            f"asking for it: `sentiment rollout roll-back --to {policy - 1}` takes that back"
        )
    runs = f"{version} runs {model['tag']} (revision {model['revision']}, {model['engine']})"
    emit(
        {"policy_version": policy, "version": version, "model": model}, lambda: console.print(runs)
    )


@app.command()
def history(
    context: typer.Context,
    *,
    limit: Annotated[int, Option(help="entries", min=1, max=200)] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the changes of policy with author, time and reason, the newest first."""
    service: ServiceClient = context.obj
    with slow_step("waiting for the service"):
        found = service.call("GET", f"/admin/rollout/history?limit={limit}", field="policies")
    emit(found, lambda: console.print(history_view(found["policies"])))


def _change(service: ServiceClient, change: dict[str, Any], reason: str, *, dry_run: bool) -> None:
    with slow_step("waiting for the service"):
        base = service.call("GET", "/admin/rollout", field="policy")["policy_version"]
        request = {**change, "base_version": base, "reason": reason, "dry_run": dry_run}
        outcome = service.call("POST", "/admin/rollout", field="policy", json=request)

    def show() -> None:
        made = f"Policy {outcome['policy_version']} follows"
        new = "Another policy would follow" if dry_run else made
        moved = outcome["subjects_moved_percent"]
        console.print(f"{new} policy {base}; {moved:g}% of subjects move")
        console.print(changes_table(outcome["changes"]))
        if outcome["policy"]["schedule"] is not None and "schedule" in change.get("changes", ()):
            console.print(plan_view(outcome["policy"]))
        if outcome.get("steps"):  # services of earlier releases do not say
            console.print(steps_view(outcome["steps"]))

    emit(outcome, show)


if __name__ == "__main__":
    run_command(app)
