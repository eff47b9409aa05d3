"""Brings a new version in front of traffic step by step, watches it, and takes it back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.live import Live

from core.settings import get_settings
from core.types import Version
from scripts.rollout_view import changes_table, history_table, status_view

POLL_SECONDS = 1.0
# A batch that a model is at, and loading another one, take seconds.
LOAD_SECONDS = 120.0
TIMEOUT_SECONDS = 10.0

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console(highlight=False)

Reason = Annotated[str, typer.Option("--reason", "-m", help="why, for whoever reads the history")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would come of it")]


class Service:
    """The admin endpoints of a running service; what it refuses ends the command with its words."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._told(lambda: self._http.get(path, params=query))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._told(lambda: self._http.post(path, json=body))

    def status(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The rollout's, and what the runners say of their models."""
        return self.get("/admin/rollout"), self._told(lambda: self._http.get("/health"), {503})[
            "versions"
        ]

    def _told(
        self, ask: Callable[[], httpx.Response], also: set[int] | None = None
    ) -> dict[str, Any]:
        try:
            reply = ask()
        except httpx.TransportError as error:
            where = self._http.base_url
            raise _failed(f"{where} does not answer ({error}); --url says where") from error
        told: dict[str, Any] = reply.json()
        if reply.is_success or reply.status_code in (also or set()):
            return told
        hint = "; --key-file names a file with a key" if reply.status_code in {401, 403} else ""
        raise _failed(f"{reply.status_code}: {told['detail']}{hint}")


def _failed(why: str) -> typer.Exit:
    console.print(f"[red]{why}[/]", soft_wrap=True)
    return typer.Exit(1)


@app.callback()
def main(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="of the service; else HOST and PORT")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="holds an API key with the scope admin", dir_okay=False)
    ] = None,
) -> None:
    settings = get_settings()
    key = key_file.read_text().strip() if key_file else None
    context.obj = Service(url or f"http://{settings.host}:{settings.port}", key)


@app.command()
def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="go on until Ctrl-C")] = False,
) -> None:
    """Which version answers whom, what the runners hold, and how the challenger does."""
    service: Service = context.obj
    if not watch:
        console.print(status_view(*service.status(), now=datetime.now(UTC)))
        return
    with Live(console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                view = status_view(*service.status(), now=datetime.now(UTC))
                live.update(view, refresh=True)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return


@app.command(name="set")
def set_policy(
    context: typer.Context,
    changes: Annotated[
        str, typer.Argument(help="JSON, or @FILE: such as '{\"shadow_percent\": 10}'")
    ],
    reason: Reason,
    dry_run: DryRun = False,
) -> None:
    """Change the fields that CHANGES names; the others stay."""
    text = Path(changes[1:]).read_text() if changes.startswith("@") else changes
    try:
        named = json.loads(text)
    except ValueError as error:
        raise _failed(f"CHANGES is not JSON: {error}") from error
    _change(context.obj, {"action": "set", "changes": named}, reason, dry_run=dry_run)


@app.command()
def start(  # noqa: PLR0917  typer makes options of these; nobody calls it by position
    context: typer.Context,
    reason: Reason,
    steps: Annotated[str, typer.Option(help="percent for the challenger")] = "5,25,50,100",
    hold: Annotated[int, typer.Option(help="seconds that each step has to hold")] = 3_600,
    shadow: Annotated[float, typer.Option(help="percent of /predict, asked of both")] = 0.0,
    promote: Annotated[bool, typer.Option(help="make it champion after the last step")] = False,
    dry_run: DryRun = False,
) -> None:
    """Raise the challenger's share step by step, as long as every guardrail is kept."""
    try:
        percents = [float(step) for step in steps.split(",")]
    except ValueError as error:
        raise _failed(f"--steps {steps}: write numbers with commas, such as 5,25,50,100") from error
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
        int | None, typer.Option(help="an earlier policy, its models too; else all to the champion")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Take the challenger's traffic away, or go back to an earlier policy."""
    asked = {"action": "roll_back"} | ({} if to is None else {"to_version": to})
    _change(context.obj, asked, reason, dry_run=dry_run)


@app.command()
def next_step(context: typer.Context, reason: Reason, dry_run: DryRun = False) -> None:
    """Go on with the schedule without waiting for its step to hold."""
    _change(context.obj, {"action": "next_step"}, reason, dry_run=dry_run)


@app.command()
def reload(
    context: typer.Context,
    version: Annotated[Version, typer.Argument(help="whose model")],
    tag: Annotated[str, typer.Argument(help="name:version in the model store, or 'configured'")],
    reason: Reason,
) -> None:
    """Load another model for a version beside the one that answers, and wait until it does."""
    service: Service = context.obj
    wanted = None if tag == "configured" else tag
    asked = {"version": version, "tag": wanted, "reason": reason}
    policy = service.post("/admin/models/reload", asked)["policy_version"]
    console.print(f"policy {policy}: {version} is to hold {tag}")
    deadline = time.monotonic() + LOAD_SECONDS
    with console.status(f"loading {tag}"):
        while (told := service.status()[1][version])["observed_generation"] != policy:
            if time.monotonic() > deadline:
                raise _failed(f"{tag} is not loaded after {LOAD_SECONDS:g} s; see /health")
            time.sleep(POLL_SECONDS / 4)
    if told["load_error"]:
        raise _failed(f"{told['refused']}; {told['tag']} goes on")
    console.print(f"{version} holds {told['tag']} (revision {told['revision']}, {told['engine']})")


@app.command()
def history(
    context: typer.Context, limit: Annotated[int, typer.Option(help="entries", max=200)] = 20
) -> None:
    """Who changed what, when and why; the newest first."""
    service: Service = context.obj
    console.print(history_table(service.get("/admin/rollout/history", limit=limit)["policies"]))


def _change(service: Service, asked: dict[str, Any], reason: str, *, dry_run: bool) -> None:
    base = service.get("/admin/rollout")["policy_version"]
    asked = {**asked, "base_version": base, "reason": reason, "dry_run": dry_run}
    told = service.post("/admin/rollout", asked)
    head = "would become" if dry_run else f"is policy {told['policy_version']} now"
    console.print(f"Policy {base} {head}; {told['subjects_moved_percent']:g} % of subjects move")
    console.print(changes_table(told["changes"]))


if __name__ == "__main__":
    app()
