"""Measures this checkout against another commit: both served, in turns, in one run.

The figures of two runs differ by more than most changes do, because a machine has other things to
do. The ratio of two measurements that follow each other differs by little.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from core.command_output import JsonOption
from core.paths import ROOT
from core.signals import sigterm_as_ctrl_c
from loadtest.bench.measure import Load, MeasurementFailed, measure
from loadtest.bench.processes import cpu_seconds
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import NotStarted, Server, alone, service_of
from loadtest.table import console, make_table
from loadtest.traffic import Kind

WARM_UP_SECONDS = 2.0
# A runner begins to time its engines ten seconds after a first start, and takes as long for it.
IDLE_SECONDS, IDLE_SHARE = 15.0, 0.05
BUSY_SECONDS = 120.0
# Nothing is refused: what is compared is how fast they are.
SETTINGS = {"MAX_QUEUE_SECONDS": "60", "MAX_BULK_QUEUE_SECONDS": "60"}
SHOWN = ("requests_per_second", "p50_ms", "p95_ms")


def main(
    revision: Annotated[str, typer.Argument(help="a commit, tag or branch to measure against")],
    *,
    kind: Annotated[list[Kind] | None, typer.Option(help="of traffic; repeatable")] = None,
    clients: Annotated[list[int] | None, typer.Option(help="repeatable")] = None,
    rounds: Annotated[int, typer.Option(help="of each", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="of each measurement", min=1)] = 8.0,
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the service of this checkout and of REVISION in turns; show the ratios."""
    if not revision:
        raise typer.BadParameter("name a commit, tag or branch", param_hint="REVISION")
    sigterm_as_ctrl_c()
    cells = [(each, number) for each in kind or [Kind.distinct] for number in clients or [64]]
    rows = []
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="against-")))
            before = stack.enter_context(checkout(revision, folder / "before"))
            servers = {}
            for name, tree in (("before", before), ("now", ROOT)):
                console.print(f"starting the service of {name}")
                (folder / f"of-{name}").mkdir()
                servers[name] = stack.enter_context(
                    service_of(tree, folder / f"of-{name}", **SETTINGS)
                )
                servers[name].wait_until_ready()
            for name, server in servers.items():
                console.print(f"waiting until the service of {name} has ended what a start begins")
                _wait_until_idle(server)
            for row in _measure(servers, cells, rounds, seconds):
                console.print("  ".join(_shown(row)), soft_wrap=True)
                rows.append(row)
    except (MeasurementFailed, NotStarted, subprocess.CalledProcessError) as error:
        console.print(f"[bold red]stopped:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from error
    ratios = [_ratio(rows, each, number) for each, number in cells]
    console.print(
        make_table(f"now against {revision}", [*ratios[0]], [[*r.values()] for r in ratios])
    )
    write_figures(record, {"against": revision, "ratios": ratios, "rows": rows})


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """A worktree of `revision` in `folder`, until the block ends.

    Raises:
        subprocess.CalledProcessError: git knows no such revision.
    """
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False)


def _wait_until_idle(server: Server) -> None:
    """Wait until no process of a service that nobody asks has anything to do.

    Raises:
        NotStarted: one still has after `BUSY_SECONDS`.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        before = cpu_seconds(server.pid)
        time.sleep(IDLE_SECONDS)
        role, used = max(cpu_seconds(server.pid, before).items(), key=itemgetter(1))
        if used < IDLE_SHARE * IDLE_SECONDS:
            return
        if time.monotonic() > deadline:
            raise NotStarted(f"{role} is busy though nobody asks: {used:.1f} s of CPU")


def _measure(
    servers: dict[str, Server], cells: Sequence[tuple[Kind, int]], rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    for seed in range(rounds):
        for kind, clients in cells:
            # New texts in each round, the same for both; which goes first alternates.
            load = Load(
                kind, clients, seconds, WARM_UP_SECONDS, seed=1_000_000 + seed * 100 + clients
            )
            for name in sorted(servers, reverse=bool(seed % 2)):
                server = servers[name]
                with alone(server, *servers.values()):
                    before = cpu_seconds(server.pid)
                    figures = measure(server.url, load)
                    spent = cpu_seconds(server.pid, before)
                share = figures["seconds"] / (figures["seconds"] + WARM_UP_SECONDS)
                yield {
                    "service": name,
                    "round": seed,
                    **load.facts(),
                    **figures,
                    "cpu_ms": {
                        role: 1_000 * used * share / max(1, figures["answers"])
                        for role, used in spent.items()
                    },
                }


def _shown(row: dict[str, Any]) -> list[str]:
    used = ", ".join(f"{role} {ms:.2f}" for role, ms in row["cpu_ms"].items() if ms >= 0.005)
    return [
        f"{row['service']:6}",
        f"{row['traffic']}, {row['clients']} clients:",
        *(f"{name} {row[name]:,.1f}" for name in SHOWN),
        f"CPU of a request, about, ms: {used}",
    ]


def _ratio(rows: Sequence[dict[str, Any]], kind: Kind, clients: int) -> dict[str, Any]:
    """The ratios of the rounds: their median, least and greatest."""

    def of(name: str) -> list[dict[str, Any]]:
        return [
            row
            for row in rows
            if (row["service"], row["traffic"], row["clients"]) == (name, kind.value, clients)
        ]

    pairs = list(zip(of("now"), of("before"), strict=True))
    faster = [now["requests_per_second"] / before["requests_per_second"] for now, before in pairs]
    return {
        "traffic": kind.value,
        "clients": clients,
        "requests/s": statistics.median(faster),
        "least": min(faster),
        "greatest": max(faster),
        "p50": statistics.median(now["p50_ms"] / before["p50_ms"] for now, before in pairs),
        "p95": statistics.median(now["p95_ms"] / before["p95_ms"] for now, before in pairs),
    }
