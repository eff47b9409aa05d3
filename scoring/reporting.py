"""The progress of scoring on the terminal: rows, share of the file, rows a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from core.counted import counted
from scoring.job import Report
from scoring.journal import Progress

_LINE_SECONDS = 10.0
_COLUMNS = (TextColumn("scoring"), BarColumn(), TextColumn("{task.description}"))


def counts(progress: Progress) -> str:
    rejected = f", {progress.rejected:,} rejected" if progress.rejected else ""
    return f"{counted(progress.scored, 'row')} scored{rejected}"


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Show a bar on a terminal, and elsewhere a line every ten seconds."""
    started = time.perf_counter()
    first: tuple[int, float] | None = None
    last_line = started

    def line(progress: Progress, fraction: float) -> str:
        nonlocal first
        first = first or (progress.end.rows, fraction)
        seconds = time.perf_counter() - started
        rate = (progress.end.rows - first[0]) / seconds
        text = f"{counts(progress)}, {fraction:.1%}"
        if fraction > first[1]:
            left = seconds * (1 - fraction) / (fraction - first[1])
            text += f", {rate:,.0f} rows/s, {_duration(left)} left"
        return text

    def report(progress: Progress, fraction: float) -> None:
        nonlocal last_line
        text = line(progress, fraction)
        if time.perf_counter() - last_line >= _LINE_SECONDS:
            last_line = time.perf_counter()
            sys.stderr.write(f"{text}\n")

    if not console.is_terminal:
        yield report
        return
    with Bar(*_COLUMNS, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda progress, fraction: bar.update(
            task, completed=fraction, description=line(progress, fraction)
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
