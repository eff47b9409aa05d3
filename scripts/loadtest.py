"""Load a running service with mixed requests and check every reply."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer

from core.command_output import JsonOption, emit, fail, note
from core.own_url import is_own_url, own_url
from core.paths import ROOT
from core.settings import get_settings
from loadtest import headless
from loadtest.bench.record import command_line, machine
from loadtest.table import LATEST, as_row, as_table, console, with_row
from loadtest.traffic import LOOPBACK
from scripts.running import run_command

README = ROOT / "loadtest" / "README.md"
REACH_SECONDS = 10.0


def main(
    *,
    host: Annotated[str, typer.Option(help="the service", show_default="this machine, PORT")] = "",
    users: Annotated[int, typer.Option(min=1, max=headless.MAX_USERS)] = 100,
    seconds: Annotated[float, typer.Option(min=1, max=headless.MAX_SECONDS)] = 60.0,
    loop: Annotated[
        headless.Loop,
        typer.Option(help="open: requests at a constant rate; closed: users wait for replies"),
    ] = headless.Loop.closed,
    shape: Annotated[
        headless.Shape, typer.Option(help="the number of users over time")
    ] = headless.Shape.constant,
    folder: Annotated[Path, typer.Option(help="for the report and the figures")] = LATEST,
    record: Annotated[bool, typer.Option("--record", help="add a row to the README")] = False,
    as_json: JsonOption = False,
) -> None:
    """Load a service with locust's users and check every reply.

    Exits with 1 if a request fails or a reply is wrong, with 2 if the load could not be sent.
    """
    # A proxy of the environment leads to others only.
    by_proxy = bool(host) and not is_own_url(host)
    host = host or own_url(get_settings().host, get_settings().port)
    if not answers(host, by_proxy=by_proxy):
        fail(f"nothing answers at {host}; `make serve` starts a service", 2)
    if not os.environ.get(headless.KEYS):
        if urlsplit(host).hostname not in LOOPBACK:
            note(f"without {headless.KEYS} all users share one client's rate limit there")
        elif not get_settings().forwarded_allow_ips:
            note(
                "all users share one client's rate limit, unless the service was started with "
                "FORWARDED_ALLOW_IPS=127.0.0.1 and ALLOW_ANONYMOUS=1"
            )
    with console.status(f"{users} users send to {host} for {seconds:g} s"):
        try:
            outcome = headless.run_locust(
                host, users=users, seconds=seconds, folder=folder, loop=loop, shape=shape
            )
        except headless.LocustFailed as error:
            fail(f"locust failed: {error}", 2)
    console.print(as_table(outcome, f"{host}, {users} users, {loop} loop, {shape}"))
    for failure, times in outcome.failures.items():
        console.print(f"[red]{times:,} times[/] {failure}", soft_wrap=True)
    console.print(f"report: {folder / headless.REPORT}", soft_wrap=True)
    if record:
        row = as_row(outcome.total, datetime.now(UTC), machine(), command_line())
        README.write_text(with_row(README.read_text(encoding="utf-8"), row), encoding="utf-8")
    emit(outcome)
    raise typer.Exit(0 if outcome.ok else 1)


def answers(host: str, *, by_proxy: bool) -> bool:
    """Whether the host gives any HTTP reply."""
    try:
        httpx.get(f"{host}/health", timeout=REACH_SECONDS, trust_env=by_proxy)
    except (httpx.TransportError, httpx.InvalidURL):
        return False
    return True


if __name__ == "__main__":
    run_command(main)
