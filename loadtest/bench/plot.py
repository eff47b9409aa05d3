"""One picture of a run: throughput and p95 over clients, and the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from loadtest.bench.plan import BASE, STARTER
from loadtest.bench.servers import BASELINE, OURS, PEER
from loadtest.traffic import Kind

_COLOURS = {OURS: "#0b6e4f", BASELINE: "#c1440e", PEER: "#3b5ba5"}
_DOTS_PER_INCH = 110


def plot(record: dict[str, Any], path: Path) -> None:
    """Write a PNG; parts that were not measured leave their places empty."""
    summary = record["summary"]
    kinds = list(Kind)
    figure = Figure(figsize=(15, 9.5))
    places = figure.subplots(3, len(kinds), squeeze=False)
    for column, kind in enumerate(kinds):
        rows = [
            row
            for row in summary.get("service", [])
            if (row["size"], row["traffic"]) == (STARTER, kind) and not row["think_seconds"][1]
        ]
        _over_clients(places[0, column], rows, "requests_per_second", f"{kind}: requests/s")
        _over_clients(places[1, column], rows, "p95_ms", f"{kind}: p95, ms")
    for column, size in enumerate((STARTER, BASE)):
        rows = [row for row in summary.get("engines", []) if row["size"] == size]
        _engines(places[2, column], rows, f"{size} size: times torch fp32")
    _cost(places[2, 2], summary.get("cost", []))
    _beside(places[2, 3], summary.get("beside_the_engine", []))
    for empty in places[2, 4:]:
        empty.set_axis_off()
    machine = record["machine"]
    figure.suptitle(
        f"{record['date'][:10]}, {machine['cores']} cores, {machine['cpu']} "
        f"({', '.join(machine['flags'])})",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _title(axes: Axes, title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        axes.set_title(title, fontsize=9)
    else:
        axes.set_axis_off()


def _plain_numbers(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(NullFormatter())


def _over_clients(axes: Axes, rows: list[dict[str, Any]], figure: str, title: str) -> None:
    _title(axes, title, rows)
    for server, colour in _COLOURS.items():
        points = [
            (row["clients"], row["servers"][server][figure])
            for row in rows
            if server in row["servers"] and row["servers"][server][figure] is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=server)
    if rows:
        axes.set(xscale="log", yscale="log")
        clients = sorted({row["clients"] for row in rows})
        axes.set_xticks(clients, [str(number) for number in clients], fontsize=7, rotation=45)
        axes.minorticks_off()
        _plain_numbers(axes.yaxis)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        axes.set_xlabel("clients", fontsize=7)


def _engines(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    _title(axes, title, rows)
    shapes = list(dict.fromkeys(f"{row['texts']}x{row['tokens']}" for row in rows))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    width = 0.8 / max(1, len(engines))
    for number, engine in enumerate(engines):
        of_engine = [row for row in rows if row["engine"] == engine]
        places = [
            shapes.index(f"{row['texts']}x{row['tokens']}") + number * width for row in of_engine
        ]
        axes.bar(places, [row["ratio"] for row in of_engine], width, label=engine)
    if rows:
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(
            [place + 0.4 - width / 2 for place in range(len(shapes))], shapes, fontsize=7
        )
        axes.set_xlabel("texts x tokens", fontsize=7)
        axes.legend(fontsize=7)


def _cost(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _title(axes, "cost: texts/s as this grows", rows)
    for grows in dict.fromkeys(row["grows"] for row in rows):
        points = [(row["size"], row["texts_per_second"]) for row in rows if row["grows"] == grows]
        axes.plot(*zip(*points, strict=True), marker="o", label=grows)
    if rows:
        axes.set(xscale="log", yscale="log")
        _plain_numbers(axes.xaxis, axes.yaxis)
        axes.tick_params(axis="x", labelsize=7, rotation=45)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


def _beside(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _title(axes, "batches of 100: texts/s", rows)
    for row in rows:
        values = [row["texts_per_second"], row["engine_texts_per_second"]]
        axes.bar(["service", f"{row['engine']} alone"], values, color=[_COLOURS[OURS], "grey"])
