"""Tables in a terminal, and a row of the table in loadtest/README.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import astuple
from rich.console import Console
from rich.table import Table

from core.paths import ROOT
from loadtest.outcome import Figures, Outcome

LATEST = ROOT / "loadtest" / "results" / "latest"
END_OF_ROWS = "<!-- end of the rows of `make loadtest` -->"

# The tables need more than the 80 columns that rich takes a file to have.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table; columns of text are to the left, numbers to the right and of three digits."""
    table = Table(title=title, title_justify="left", title_style="bold")
    rows = list(rows)
    for column, cell in zip(columns, rows[0], strict=True):
        table.add_column(column, justify="left" if isinstance(cell, str) else "right")
    for row in rows:
        table.add_row(*map(_as_text, row))
    return table


def _as_text(cell: str | float | None) -> str:
    if cell is None or isinstance(cell, str):
        return cell or "-"
    return f"{cell:,.0f}" if isinstance(cell, int) or abs(cell) >= 100 else f"{cell:.3g}"


def as_table(outcome: Outcome, title: str) -> Table:
    columns = ("", "answers", "failures", "requests/s", "p50 ms", "p95 ms", "p99 ms")
    rows = [astuple(figures) for figures in outcome.endpoints]
    return make_table(title, columns, [*rows, ("all", *astuple(outcome.total)[1:])])


def as_row(total: Figures, date: datetime, where: dict[str, object], command: str) -> str:
    """A row of the table in loadtest/README.md."""
    described = f"{where['cores']} cores, {where['cpu']}"
    latencies = (total.p50_ms, total.p95_ms, total.p99_ms)
    cells = [
        f"{date:%Y-%m-%d}",
        described,
        f"`{command}`",
        f"{total.answers:,}",
        f"{total.failures:,}",
        f"{total.requests_per_second:.1f}",
        *("-" if latency is None else f"{latency:,.0f}" for latency in latencies),
    ]
    return f"| {' | '.join(cells)} |"


def with_row(readme: str, row: str) -> str:
    """The README with one more row at the end of the table."""
    if END_OF_ROWS not in readme:
        raise ValueError(f"no line {END_OF_ROWS}")
    return readme.replace(END_OF_ROWS, f"{row}\n{END_OF_ROWS}")
