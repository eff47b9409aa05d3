"""A progress bar for commands that may take long; one that is done at once shows none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from core.command_output import SILENT_SECONDS

_COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
)  # fmt: skip

# Called with a step, and returns what to call with the share of it that is done.
Steps = Callable[[str], Callable[[float], object]]


@contextmanager
def late_progress(console: Console) -> Iterator[Steps]:
    """Show the current step on a terminal, once the command has taken two seconds."""
    bar = Progress(*_COLUMNS, console=console, transient=True)
    task = bar.add_task("", total=1.0)
    begun = time.monotonic()

    def step(name: str) -> Callable[[float], object]:
        bar.reset(task, description=name, total=1.0)

        def update(share: float) -> None:
            if console.is_terminal and time.monotonic() - begun >= SILENT_SECONDS:
                bar.start()
            bar.update(task, completed=share)

        return update

    try:
        yield step
    finally:
        if bar.live.is_started:  # it would print an empty line otherwise
            bar.stop()
