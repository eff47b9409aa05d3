"""The figures of a load test as a table in a terminal, and as a row of loadtest/README.md."""

from __future__ import annotations

from datetime import datetime

from rich.table import Table

from core.paths import ROOT
from loadtest.outcome import Figures, Outcome

LATEST = ROOT / "loadtest" / "results" / "latest"
END_OF_ROWS = "<!-- end of the rows of `make loadtest` -->"


def as_table(outcome: Outcome, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in ("answers", "failures", "requests/s", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for figures in (*outcome.endpoints, outcome.total):
        table.add_row("all" if figures is outcome.total else figures.name, *_cells(figures))
    return table


def as_row(total: Figures, date: datetime, where: dict[str, object], command: str) -> str:
    """A row of the table in loadtest/README.md."""
    described = f"{where['cores']} cores, {where['cpu']}"
    cells = [f"{date:%Y-%m-%d}", described, f"`{command}`", *_cells(total)]
    return f"| {' | '.join(cells)} |"


def with_row(readme: str, row: str) -> str:
    """The README with one more row at the end of the table."""
    if END_OF_ROWS not in readme:
        raise ValueError(f"no line {END_OF_ROWS}")
    return readme.replace(END_OF_ROWS, f"{row}\n{END_OF_ROWS}")


def _cells(figures: Figures) -> list[str]:
    latencies = (figures.p50_ms, figures.p95_ms, figures.p99_ms)
    return [
        f"{figures.answers:,}",
        f"{figures.failures:,}",
        f"{figures.requests_per_second:.1f}",
        *("-" if latency is None else f"{latency:,.0f}" for latency in latencies),
    ]
