"""One picture of a run: throughput and p95 over clients, and the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from loadtest.bench.peers import INFINITY_BEST, LITSERVE, LITSERVE_BEST, MLSERVER_BEST
from loadtest.bench.plan import BASE, STARTER
from loadtest.bench.servers import BASELINE, OURS
from loadtest.traffic import Kind

_COLOURS = {
    OURS: "#0b6e4f", BASELINE: "#c1440e", LITSERVE: "#3b5ba5", LITSERVE_BEST: "#8fa3d1",
    INFINITY_BEST: "#7a4fa3", MLSERVER_BEST: "#8a8a00",
}  # fmt: skip
_DOTS_PER_INCH = 110


def plot(record: dict[str, Any], path: Path) -> None:
    """Write a PNG; parts that were not measured leave their places empty."""
    summary = record["summary"]
    figure = Figure(figsize=(15, 9.5))
    places = figure.subplots(3, len(Kind), squeeze=False)
    for column, kind in enumerate(Kind):
        rows = [
            row
            for row in summary.get("service", [])
            if (row["size"], row["traffic"]) == (STARTER, kind) and not row["think_seconds"][1]
        ]
        for place, key, title in (
            (0, "requests_per_second", "requests/s"),
            (1, "p95_ms", "p95, ms"),
        ):
            lines = {
                server: [
                    (row["clients"], row["servers"][server][key])
                    for row in rows
                    if row["servers"].get(server, {}).get(key) is not None
                ]
                for server in _COLOURS
            }
            _lines(places[place, column], f"{kind}: {title}", lines, "clients")
    for column, size in enumerate((STARTER, BASE)):
        rows = [row for row in summary.get("engines", []) if row["size"] == size]
        _engines(places[2, column], f"{size} size: times torch fp32", rows)
    growing: dict[str, list[tuple[float, float]]] = {}
    for row in summary.get("cost", []):
        growing.setdefault(row["grows"], []).append((row["size"], row["texts_per_second"]))
    _lines(places[2, 2], "cost: texts/s as this grows", growing)
    beside = summary.get("beside_the_engine", [])
    _finish(places[2, 3], "batches of 100: texts/s", beside)
    for row in beside:
        values = [row["texts_per_second"], row["engine_texts_per_second"]]
        names = ["service", f"{row['engine']} alone"]
        places[2, 3].bar(names, values, color=[_COLOURS[OURS], "grey"])
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


def _finish(axes: Axes, title: str, shown: Sequence[Any], x_label: str = "") -> None:
    """Give a title and a legend to axes that show something, and hide others."""
    if not shown:
        axes.set_axis_off()
        return
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x_label, fontsize=7)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def _lines(
    axes: Axes, title: str, lines: Mapping[str, list[tuple[float, float]]], x_label: str = ""
) -> None:
    for name, points in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=_COLOURS.get(name), label=name)
    places = sorted({place for points in lines.values() for place, _ in points})
    if places:
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(places, [f"{place:,}" for place in places], fontsize=7, rotation=45)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    _finish(axes, title, places, x_label)


def _engines(axes: Axes, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    ratios: dict[str, dict[str, float]] = {}
    for row in rows:
        ratios.setdefault(row["engine"], {})[f"{row['texts']}x{row['tokens']}"] = row["ratio"]
    shapes = list(dict.fromkeys(shape for of in ratios.values() for shape in of))
    width = 0.8 / max(1, len(ratios))
    for number, (engine, of) in enumerate(ratios.items()):
        places = [shapes.index(shape) + number * width for shape in of]
        axes.bar(places, list(of.values()), width, label=engine)
    if rows:
        axes.axhline(1, color="black", linewidth=0.8)
        middles = [place + 0.4 - width / 2 for place in range(len(shapes))]
        axes.set_xticks(middles, shapes, fontsize=7)
    _finish(axes, title, rows, "texts x tokens")
