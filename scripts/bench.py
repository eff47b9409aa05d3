"""Measure engines, service, cost and start beside their peers."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import bentoml
import typer
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from core.command_output import JsonOption, emit, fail
from core.late_packages import REQUIREMENTS, PackagesUnavailable, ensure_packages
from core.paths import ROOT
from core.signals import sigterm_as_ctrl_c
from loadtest.bench.measure import MeasurementFailed
from loadtest.bench.parts import measure_parts
from loadtest.bench.plan import QUICK, Part, Plan
from loadtest.bench.record import as_json, command_line, make_record
from loadtest.bench.servers import NotStarted
from loadtest.bench.summary import Row
from loadtest.bench.tables import tables
from loadtest.table import console
from runners.engines.choice import EngineUnavailable
from scripts.running import run_command

RESULTS = ROOT / "loadtest" / "results"
# The download of what `bench.lock` adds to a service.
PACKAGES_MB = 25
ENGINE_FAILURES = (BrokenProcessPool, EngineUnavailable, bentoml.exceptions.NotFound)


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="take two minutes instead of half an hour")
    ] = False,
    only: Annotated[list[Part] | None, typer.Option(help="measure this part; repeatable")] = None,
    name: Annotated[str, typer.Option(help="name of the record", show_default="today's date")] = "",
    folder: Annotated[Path, typer.Option(help="folder of the record")] = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Measure, print the tables, and write NAME.json and NAME.png."""
    sigterm_as_ctrl_c()
    plan, parts = QUICK if quick else Plan(), only or list(Part)
    total = sum(plan.steps()[part] for part in parts)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        ensure_packages(REQUIREMENTS / "bench.lock", "charts and the peers", PACKAGES_MB)
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=total)

            def step(description: str) -> None:
                progress.update(task, description=description, advance=1)

            rows = list(measure_parts(plan, parts, step))
            progress.update(task, description="done", completed=total)
    except (*ENGINE_FAILURES, MeasurementFailed, NotStarted, PackagesUnavailable) as error:
        fail(f"stopped: {error}")
    _write(rows, folder, name or f"{datetime.now(UTC):%Y-%m-%d}{'-quick' if quick else ''}")


def _write(rows: list[Row], folder: Path, name: str) -> None:
    # Imported here because it takes a second.
    from loadtest.bench.plot import plot

    record = make_record(rows, command_line())
    for table in tables(record):
        console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(as_json(record), encoding="utf-8")
    plot(record, path.with_suffix(".png"))
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    emit(record)
    console.print(f"recorded in {shown} and {shown.with_suffix('.png')}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
