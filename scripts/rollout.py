"""Roll a new version out step by step, watch it, and roll it back."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from typer import Argument, Option

from core.errors import describe_error
from core.own_url import is_own_url, own_url
from core.printable import printable_values
from core.settings import get_settings
from core.types import Version
from scripts.rollout_view import changes_table, history_table, status_view, steps_table
from scripts.running import run_command

POLL_SECONDS = 1.0
# Loading a model takes seconds, after the batch that the old one computes.
LOAD_SECONDS = 120.0
TIMEOUT_SECONDS = 10.0

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console(highlight=False, emoji=False)

Reason = Annotated[str, Option("--reason", "-m", help="the reason, for the history")]
DryRun = Annotated[bool, Option("--dry-run", help="print the change without making it")]


class Service(httpx.Client):
    """Client of the admin endpoints; an error reply ends the command with its detail."""

    def call(self, method: str, path: str, *, accepts: int = 200, **content: Any) -> dict[str, Any]:
        try:
            reply = self.request(method, path, **content)
        except httpx.HTTPError as error:
            raise _failed(f"{self.base_url} does not answer ({error}); set --url") from error
        is_key = reply.status_code in {401, 403}
        hint = "; --key-file takes a file with an API key" if is_key else ""
        try:
            # Others wrote some of it, and a terminal obeys what it is sent.
            fields: dict[str, Any] = printable_values(reply.json())
            if reply.is_success or reply.status_code == accepts:
                return dict(fields)
            detail = fields["detail"]
        except (ValueError, LookupError, TypeError) as error:
            raise _failed(
                f"{self.base_url} answers {reply.status_code}, but not as this service{hint}; "
                "set --url"
            ) from error
        raise _failed(f"{reply.status_code}: {detail}{hint}")

    def models(self) -> dict[str, Any]:
        """The runners' report on the model of each version."""
        # /health answers 503 with its report where predictions cannot be served.
        models: dict[str, Any] = self.call("GET", "/health", accepts=503)["versions"]
        return models


def _failed(reason: str) -> typer.Exit:
    console.print(f"[red]{escape(reason)}[/]", soft_wrap=True)
    return typer.Exit(1)


@app.callback()
def main(
    context: typer.Context,
    url: Annotated[str | None, Option(help="the service [default: HOST and PORT]")] = None,
    key_file: Annotated[
        Path | None, Option(help="file with an API key of the scope admin", dir_okay=False)
    ] = None,
) -> None:
    """Roll a new version out step by step, watch it, and roll it back."""
    settings = get_settings()
    headers = {"Authorization": f"Bearer {_key(key_file)}"} if key_file else {}
    base_url = url or own_url(settings.host, settings.port)
    try:
        context.obj = Service(
            base_url=base_url,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            # A proxy of the environment leads to others only.
            trust_env=not is_own_url(base_url) and url is not None,
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise _failed(f"{base_url} cannot be called ({error}); set --url") from error


def _key(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeError) as error:
        raise _failed(f"{file} cannot be read ({describe_error(error)})") from error
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise _failed(f"{file} holds no API key: it must be one line of ASCII")
    return key


@app.command()
def status(
    context: typer.Context,
    watch: Annotated[bool, Option("--watch", "-w", help="refresh until Ctrl-C")] = False,
) -> None:
    """Show shares of traffic, loaded models, the schedule and the guardrails."""
    service: Service = context.obj

    def view() -> RenderableType:
        models = service.models()
        return status_view(service.call("GET", "/admin/rollout"), models, now=datetime.now(UTC))

    if not watch:
        console.print(view())
        return
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            live.update(view(), refresh=True)
            time.sleep(POLL_SECONDS)


@app.command(name="set")
def set_policy(
    context: typer.Context,
    changes: Annotated[str, Argument(help="JSON, or @FILE: such as '{\"shadow_percent\": 10}'")],
    reason: Reason,
    dry_run: DryRun = False,
) -> None:
    """Change the given fields of the policy; the others stay."""
    try:
        file = Path(changes[1:]) if changes.startswith("@") else None
        fields = json.loads(file.read_text(encoding="utf-8-sig") if file else changes)
    except OSError as error:
        raise _failed(f"CHANGES cannot be read: {describe_error(error)}") from error
    except (ValueError, RecursionError) as error:
        raise _failed(f"CHANGES is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _failed('CHANGES must be a JSON object, such as {"shadow_percent": 10}')
    _change(context.obj, {"action": "set", "changes": fields}, reason, dry_run=dry_run)


@app.command()
def start(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    context: typer.Context,
    reason: Reason,
    steps: Annotated[
        str, Option(help="the challenger's percent of traffic at each step")
    ] = "5,25,50,100",
    hold: Annotated[int, Option(help="seconds that each step lasts")] = 3_600,
    shadow: Annotated[
        float, Option(help="percent of /predict that the challenger answers in shadow")
    ] = 0.0,
    promote: Annotated[
        bool, Option(help="make the challenger champion after the last step")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Raise the challenger's share step by step, while every guardrail passes."""
    try:
        percents = [float(step) for step in steps.split(",")]
    except ValueError:
        percents = [math.nan]
    if not all(map(math.isfinite, percents)):  # JSON has no other numbers
        raise _failed(f"--steps {steps}: write numbers with commas, such as 5,25,50,100")
    schedule = {"steps": percents, "hold_seconds": hold, "promote": promote}
    changes = {"schedule": schedule, "shadow_percent": shadow}
    _change(context.obj, {"action": "set", "changes": changes}, reason, dry_run=dry_run)


@app.command()
def promote(context: typer.Context, reason: Reason, dry_run: DryRun = False) -> None:
    """Make the challenger champion, with all of the traffic."""
    _change(context.obj, {"action": "promote"}, reason, dry_run=dry_run)


@app.command()
def roll_back(
    context: typer.Context,
    reason: Reason,
    to: Annotated[
        int | None,
        Option(help="an earlier policy, with its models [default: all traffic to the champion]"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Move all traffic to the champion, or restore an earlier policy."""
    change = {"action": "roll_back"} | ({} if to is None else {"to_version": to})
    _change(context.obj, change, reason, dry_run=dry_run)


@app.command()
def next_step(context: typer.Context, reason: Reason, dry_run: DryRun = False) -> None:
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
) -> None:
    """Load another model for a version without interruption, and wait until it answers."""
    service: Service = context.obj
    chosen = None if tag == "configured" else tag
    request = {"version": version, "tag": chosen, "reason": reason}
    policy = service.call("POST", "/admin/models/reload", json=request)["policy_version"]
    console.print(f"policy {policy}: {version} loads {tag}")
    deadline = time.monotonic() + LOAD_SECONDS
    with console.status(f"loading {tag}"):
        while (model := service.models()[version])["observed_generation"] != policy:
            if time.monotonic() > deadline:
                raise _failed(f"{tag} is not loaded after {LOAD_SECONDS:g} s; see /health")
            time.sleep(POLL_SECONDS / 4)
    if model["load_error"]:
        raise _failed(f"{model['load_error']}; {model['tag']} still answers")
    console.print(
        f"{version} runs {model['tag']} (revision {model['revision']}, {model['engine']})"
    )


@app.command()
def history(
    context: typer.Context, limit: Annotated[int, Option(help="entries", max=200)] = 20
) -> None:
    """List the changes of policy with author, time and reason, the newest first."""
    service: Service = context.obj
    policies = service.call("GET", "/admin/rollout/history", params={"limit": limit})["policies"]
    console.print(history_table(policies))


def _change(service: Service, change: dict[str, Any], reason: str, *, dry_run: bool) -> None:
    base = service.call("GET", "/admin/rollout")["policy_version"]
    request = {**change, "base_version": base, "reason": reason, "dry_run": dry_run}
    outcome = service.call("POST", "/admin/rollout", json=request)
    made = f"Policy {outcome['policy_version']} follows"
    new = "Another policy would follow" if dry_run else made
    moved = outcome["subjects_moved_percent"]
    console.print(f"{new} policy {base}; {moved:g} % of subjects move")
    console.print(changes_table(outcome["changes"]))
    if outcome.get("steps"):  # services of earlier releases do not say
        console.print(steps_table(outcome["steps"]))


if __name__ == "__main__":
    run_command(app)
