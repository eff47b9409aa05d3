"""The tables that a run ends with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from loadtest.bench.summary import Row
from loadtest.table import make_table

# Of each part, and of the targets: the title, and the heading of each figure.
_TABLES = {
    "peak": ("What the cores multiply at most, in products of 2,048 by 2,048", {
        "precision": "precision", "billion_multiply_adds_per_second": "billion multiply-adds/s",
    }),
    "engines": ("Engines against torch fp32, both on all cores", {
        "size": "size", "engine": "engine", "batch": "batch", "texts_per_second": "texts/s",
        "reference_texts_per_second": "torch texts/s", "ratio": "times",
        "batch_alone_ms": "alone, ms", "batch_alone_ratio": "times",
    }),
    "service": ("The service", {
        "size": "size", "traffic": "traffic", "clients": "clients", "server": "server",
        "requests_per_second": "requests/s", "texts_per_second": "texts/s", "p50_ms": "p50 ms",
        "p95_ms": "p95 ms", "p99_ms": "p99 ms", "failures": "failed", "times": "ours is",
    }),
    "cost": ("How cost grows (ours, distinct texts)", {
        "grows": "grows", "size": "size", "clients": "clients", "texts_per_second": "texts/s",
        "ms_per_text": "ms a text", "p50_ms": "p50 ms", "p95_ms": "p95 ms", "failures": "failed",
    }),
    "beside_the_engine": ("/predict/batch of 100 texts of mixed length", {
        "engine": "engine", "texts_per_second": "service texts/s",
        "engine_texts_per_second": "engine alone texts/s", "share": "share",
        "engine_rows": "its best batch",
    }),
    "start": ("Start, and memory in MiB", {
        "size": "size", "ready_seconds": "ready, s", "idle_pss_mib": "idle PSS",
        "idle_rss_mib": "idle RSS", "loaded_pss_mib": "loaded PSS", "loaded_rss_mib": "loaded RSS",
    }),
    "targets": ("Required figures", {
        "name": "figure", "required": "required", "measured": "measured", "verdict": "",
    }),
}  # fmt: skip
_VERDICTS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: "not measured"}


def tables(record: dict[str, Any]) -> Iterator[Table]:
    """One for each part that was measured, and the required figures last."""
    parts = {**record["summary"], "targets": record["targets"]}
    for part, (title, columns) in _TABLES.items():
        if rows := [shown for row in parts.get(part, ()) for shown in _shown(part, row)]:
            cells = [[row.get(figure) for figure in columns] for row in rows]
            yield make_table(title, list(columns.values()), cells)


def _shown(part: str, row: Row) -> Iterator[Row]:
    """The rows of the table that one of the summary makes."""
    match part:
        case "engines":
            yield row | {"batch": f"{row['texts']}x{row['tokens']}"}
        case "service":
            least, most = row["think_seconds"]
            traffic = f"{row['traffic']}, think {least:g}-{most:g} s" if most else row["traffic"]
            for server, figures in row["servers"].items():
                times = row["times"].get(server, {}).get("requests_per_second")
                yield {**row, **figures, "traffic": traffic, "server": server, "times": times}
        case "targets":
            yield row | {"verdict": _VERDICTS[row["met"]]}
        case _:
            yield row
