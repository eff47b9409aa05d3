"""Measures a start as `make serve` does it: CPU time and memory of each process, dearest imports.

CPU time says what a start costs on a busy machine too; the seconds to ready do not.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from core.command_output import JsonOption
from core.paths import ROOT
from core.signals import sigterm_as_ctrl_c
from loadtest.bench.against import checkout
from loadtest.bench.measure import Load, measure
from loadtest.bench.processes import of_each_role
from loadtest.bench.record import RecordOption, write_figures
from loadtest.bench.servers import (
    NotStarted,
    configured_models,
    link_store,
    service_of,
    tags_of,
)
from loadtest.table import console, make_table
from loadtest.traffic import Kind

CLIENTS = 64
DEAREST = 10
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$")
# Python reads it at its start. A forked process goes on importing, so it gets a file of its own.
_SITECUSTOMIZE = """
import os

def _divert():
    path = os.path.join({folder!r}, str(os.getpid()))
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)

_divert()
os.register_at_fork(after_in_child=_divert)
"""
_WHOLE = "all"


def main(
    *,
    against: Annotated[str, typer.Option(help="also a commit, tag or branch, in turns")] = "",
    rounds: Annotated[int, typer.Option(help="starts of each", min=1)] = 3,
    load_seconds: Annotated[
        float, typer.Option(help="of distinct texts, before memory is read again", min=0)
    ] = 0.0,
    record: RecordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start the service several times; show CPU time and memory by process, and its imports."""
    sigterm_as_ctrl_c()
    rows: list[dict[str, Any]] = []
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="start-")))
            trees = {"now": ROOT}
            if against:
                trees["before"] = stack.enter_context(checkout(against, folder / "checkout"))
            models = configured_models()
            tags = tags_of(models)
            for name in trees:
                (folder / name).mkdir()
                link_store(folder / name, models)
            for number in range(rounds + 1):
                # Which goes first alternates.
                for name in sorted(trees, reverse=bool(number % 2)):
                    starts = _start(trees[name], folder / name, tags, load_seconds)
                    # The first start of each makes its databases, and compiles what it imports.
                    if number > 0:
                        rows += ({"service": name, "round": number, **row} for row in starts)
            imports = {
                name: _dearest_imports(tree, folder / name, tags) for name, tree in trees.items()
            }
    except (NotStarted, subprocess.CalledProcessError) as error:
        console.print(f"[bold red]stopped:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from error
    for name in trees:
        own = [row for row in rows if row["service"] == name]
        console.print(make_table(f"{name}, medians of {rounds} starts", *_summary(own)))
    for name, roles in imports.items():
        for role, modules in roles.items():
            dearest = ", ".join(f"{package} {ms:.0f}" for package, ms in modules[:DEAREST])
            total = sum(ms for _, ms in modules)
            console.print(f"{name}: {role} imports for {total:.0f} ms: {dearest}", soft_wrap=True)
    write_figures(record, {"against": against, "rows": rows, "imports_ms": imports})


def _start(
    tree: Path, folder: Path, tags: Mapping[str, str], load_seconds: float
) -> list[dict[str, Any]]:
    """A row for each process of one start, and one for all."""
    with service_of(tree, folder, **tags) as server:
        ready_seconds = server.wait_until_ready()
        started = psutil.Process(server.pid).create_time()
        rows = list(_used(server.pid, started))
        if load_seconds:
            measure(server.url, Load(Kind.distinct, CLIENTS, load_seconds, 0.0, seed=700_000))
            loaded = _by_role(_used(server.pid, started), "pss_mib")
            rows = [{**row, "loaded_pss_mib": loaded.get(row["process"])} for row in rows]
    whole = {
        "process": _WHOLE,
        "started_seconds": 0.0,
        "ready_seconds": ready_seconds,
        **{
            figure: sum(row[figure] for row in rows)
            for figure in ("cpu_seconds", "pss_mib", "loaded_pss_mib")
            if all(row.get(figure) is not None for row in rows)
        },
    }
    return [*rows, whole]


def _used(pid: int, started: float) -> Iterator[dict[str, Any]]:
    """What each role has used so far; CPU time with that of children that have ended."""
    rows: dict[str, dict[str, Any]] = {}
    for role, process, times in of_each_role(pid, psutil.Process.cpu_times):
        with suppress(psutil.NoSuchProcess):
            row = rows.setdefault(
                role,
                {
                    "process": role,
                    "started_seconds": process.create_time() - started,
                    "cpu_seconds": 0.0,
                    "pss_mib": 0.0,
                },
            )
            row["pss_mib"] += process.memory_full_info().pss / 2**20
            row["cpu_seconds"] += sum(times[:4])
    yield from rows.values()


def _by_role(rows: Iterator[dict[str, Any]], figure: str) -> Mapping[str, float]:
    return {row["process"]: row[figure] for row in rows}


def _summary(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The columns, and the medians of each process."""
    columns = {
        "started_seconds": "started after, s", "ready_seconds": "ready, s", "cpu_seconds": "CPU s",
        "pss_mib": "PSS, MiB", "loaded_pss_mib": "PSS under load, MiB",
    }  # fmt: skip
    columns = {key: title for key, title in columns.items() if any(key in row for row in rows)}
    lines = []
    for role in dict.fromkeys(row["process"] for row in rows):
        own = [row for row in rows if row["process"] == role]
        medians = [
            statistics.median(found)
            if (found := [row[key] for row in own if row.get(key)])
            else None
            for key in columns
        ]
        lines.append([role, *medians])
    return ["process", *columns.values()], lines


def _dearest_imports(
    tree: Path, folder: Path, tags: Mapping[str, str]
) -> dict[str, list[tuple[str, float]]]:
    """Milliseconds of the imports of each role, by package, in one more start."""
    site = folder / "site"
    diverted = folder / "imports"
    for each in (site, diverted):
        each.mkdir()
    (site / "sitecustomize.py").write_text(
        _SITECUSTOMIZE.format(folder=str(diverted)), encoding="utf-8"
    )
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    settings = {"PYTHONPATH": path, "PYTHONPROFILEIMPORTTIME": "1"}
    with service_of(tree, folder, **tags, **settings) as server:
        server.wait_until_ready()
        roles = of_each_role(server.pid, lambda process: diverted / str(process.pid))
        return {role: _by_package(file) for role, _, file in roles if file.exists()}


def _by_package(file: Path) -> list[tuple[str, float]]:
    """Milliseconds by package, the dearest first."""
    spent: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _IMPORT.match(line):
            spent[found[2].partition(".")[0]] += int(found[1])
    return [(package, microseconds / 1_000) for package, microseconds in spent.most_common()]
