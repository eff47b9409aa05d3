"""The tables that a run ends with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table


def tables(record: dict[str, Any]) -> Iterator[Table]:
    """One for each part that was measured, and the required figures last."""
    summary = record["summary"]
    if "engines" in summary:
        yield _engines(summary["engines"])
    if "service" in summary:
        yield _service(summary["service"])
    if "cost" in summary:
        yield _cost(summary["cost"])
    if "beside_the_engine" in summary:
        yield _beside_the_engine(summary["beside_the_engine"][0])
    if "start" in summary:
        yield _start(summary["start"])
    yield _targets(record["targets"])


def _engines(rows: list[dict[str, Any]]) -> Table:
    columns = ("size", "engine", "batch", "texts/s", "torch texts/s", "ratio", "alone", "ratio")
    table = _table("Engines against torch fp32, both on all cores", *columns, text_columns=3)
    for row in rows:
        table.add_row(
            row["size"],
            row["engine"],
            f"{row['texts']}x{row['tokens']}",
            _number(row["texts_per_second"]),
            _number(row["reference_texts_per_second"]),
            _times(row["ratio"]),
            _number(row["batch_alone_ms"], " ms"),
            _times(row["batch_alone_ratio"]),
        )
    return table


def _service(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "size",
        "traffic",
        "clients",
        "server",
        "requests/s",
        "texts/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
    )
    table = _table("The service", *columns, "failed", "ours is", text_columns=2)
    for row in rows:
        least, most = row["think_seconds"]
        thinking = f", think {least:g}-{most:g} s" if most else ""
        for number, (name, figures) in enumerate(row["servers"].items()):
            last = number == len(row["servers"]) - 1
            table.add_row(
                row["size"] if not number else "",
                f"{row['traffic']}{thinking}" if not number else "",
                str(row["clients"]) if not number else "",
                name,
                *(
                    _number(figures[figure])
                    for figure in ("requests_per_second", "texts_per_second")
                ),
                *(_number(figures[figure]) for figure in ("p50_ms", "p95_ms", "p99_ms")),
                str(figures["failures"]),
                _times(row["times"][name]["requests_per_second"]) if name in row["times"] else "",
                end_section=last,
            )
    return table


def _cost(rows: list[dict[str, Any]]) -> Table:
    columns = ("grows", "size", "clients", "texts/s", "ms a text", "p50 ms", "p95 ms", "failed")
    table = _table("How cost grows (ours, distinct texts)", *columns, text_columns=1)
    for row in rows:
        table.add_row(
            row["grows"],
            str(row["size"]),
            str(row["clients"]),
            *(
                _number(row[figure])
                for figure in ("texts_per_second", "ms_per_text", "p50_ms", "p95_ms")
            ),
            str(row["failures"]),
        )
    return table


def _beside_the_engine(row: dict[str, Any]) -> Table:
    columns = ("engine", "service texts/s", "engine alone texts/s", "share", "its best batch")
    table = _table("/predict/batch of 100 texts of mixed length", *columns, text_columns=1)
    table.add_row(
        row["engine"],
        _number(row["texts_per_second"]),
        _number(row["engine_texts_per_second"]),
        f"{100 * row['share']:.0f} %",
        str(row["engine_rows"]),
    )
    return table


def _start(rows: list[dict[str, Any]]) -> Table:
    columns = ("size", "ready", "idle PSS", "idle RSS", "loaded PSS", "loaded RSS")
    table = _table("Start and memory", *columns, text_columns=1)
    for row in rows:
        table.add_row(
            row["size"],
            f"{row['ready_seconds']:.1f} s",
            *(
                f"{row[figure]:.0f} MiB"
                for figure in ("idle_pss_mib", "idle_rss_mib", "loaded_pss_mib", "loaded_rss_mib")
            ),
        )
    return table


def _targets(rows: list[dict[str, Any]]) -> Table:
    table = _table("Required figures", "figure", "required", "measured", "", text_columns=1)
    verdicts = {True: "[green]met[/]", False: "[bold red]missed[/]", None: "not measured"}
    for row in rows:
        table.add_row(row["name"], row["required"], _number(row["measured"]), verdicts[row["met"]])
    return table


def _table(title: str, *columns: str, text_columns: int = 0) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < text_columns else "right")
    return table


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
