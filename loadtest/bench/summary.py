"""Summaries of the measured rows: medians over the rounds, and ratios within a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from loadtest.bench.servers import OURS

Row = dict[str, Any]
_FIGURES = ("requests_per_second", "texts_per_second", "p50_ms", "p95_ms", "p99_ms")


def summarise(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """A list for each part that was measured; `rows` are those of a whole run."""
    parts = {
        "engines": _engines,
        "service": _service,
        "cost": _cost,
        "beside_the_engine": _beside_the_engine,
        "start": _start,
    }
    return {name: found for name, of_part in parts.items() if (found := of_part(rows))}


def failures_of(row: Row) -> int:
    """Failed requests, those of the warm-up too."""
    failures: dict[str, int] = row["failures"]
    warm_up_failures: dict[str, int] = row["warm_up_failures"]
    return sum(failures.values()) + sum(warm_up_failures.values())


def _engines(rows: Sequence[Row]) -> list[Row]:
    summary = []
    for group in _groups(_of(rows, "engines"), "size", "engine", "texts", "tokens"):
        ratios = [row["texts_per_second"] / row["reference_texts_per_second"] for row in group]
        alone = [row["reference_batch_alone_ms"] / row["batch_alone_ms"] for row in group]
        summary.append(
            _pick(group[0], "size", "engine", "texts", "tokens")
            | _medians(group, "texts_per_second", "reference_texts_per_second", "batch_alone_ms")
            | {"ratio": median(ratios), "batch_alone_ratio": median(alone)}
        )
    return summary


def _service(rows: Sequence[Row]) -> list[Row]:
    """One for each traffic and number of clients; `times` is how many times ours is better."""
    cell = ("size", "traffic", "clients", "think_seconds")
    summary = []
    for group in _groups(_of(rows, "service"), *cell):
        by_server = {
            name: [row for row in group if row["server"] == name] for name in _names(group)
        }
        servers = {
            name: _medians(found, *_FIGURES) | {"failures": sum(map(failures_of, found))}
            for name, found in by_server.items()
        }
        ours = by_server[OURS]
        times = {
            name: {
                "requests_per_second": _median_ratio(ours, found, "requests_per_second"),
                **{
                    figure: _median_ratio(found, ours, figure)
                    for figure in ("p50_ms", "p95_ms", "p99_ms")
                },
            }
            for name, found in by_server.items()
            if name != OURS
        }
        summary.append(_pick(group[0], *cell) | {"servers": servers, "times": times})
    return summary


def _cost(rows: Sequence[Row]) -> list[Row]:
    return [
        _pick(row, "grows", "size", "clients", "texts_per_second", "p50_ms", "p95_ms")
        | {"ms_per_text": 1_000 / row["texts_per_second"] if row["texts_per_second"] else None}
        | {"failures": failures_of(row)}
        for row in _of(rows, "cost")
        if "engine" not in row
    ]


def _beside_the_engine(rows: Sequence[Row]) -> list[Row]:
    group = [row for row in _of(rows, "cost") if "engine" in row]
    if not group:
        return []
    shares = [row["texts_per_second"] / row["engine_texts_per_second"] for row in group]
    return [
        _pick(group[0], "engine", "engine_rows", "batch_texts", "clients")
        | _medians(group, "texts_per_second", "engine_texts_per_second", "p50_ms")
        | {"share": median(shares), "failures": sum(map(failures_of, group))}
    ]


def _start(rows: Sequence[Row]) -> list[Row]:
    figures = ("ready_seconds", "idle_rss_mib", "idle_pss_mib", "loaded_rss_mib", "loaded_pss_mib")
    return [
        _pick(group[0], "size") | _medians(group, *figures)
        for group in _groups(_of(rows, "start"), "size")
    ]


def _of(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def _names(group: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["server"] for row in group))


def _groups(rows: list[Row], *keys: str) -> list[list[Row]]:
    """Rows that agree in `keys`, the groups in the order of their first rows."""

    def key(row: Row) -> str:
        return repr([row[name] for name in keys])

    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(key(row), len(first))
    order: Callable[[Row], int] = lambda row: first[key(row)]  # noqa: E731
    return [list(group) for _, group in groupby(sorted(rows, key=order), order)]


def _pick(row: Row, *keys: str) -> Row:
    return {key: row[key] for key in keys}


def _medians(group: Sequence[Row], *keys: str) -> Row:
    """None where no round has a figure: with no answer there is no latency."""
    values = {key: [row[key] for row in group if row[key] is not None] for key in keys}
    return {key: median(found) if found else None for key, found in values.items()}


def _median_ratio(above: Sequence[Row], below: Sequence[Row], figure: str) -> float | None:
    """The median over the rounds of the ratio of what was measured in the same round."""
    ratios = [
        upper[figure] / lower[figure]
        for upper, lower in zip(above, below, strict=True)
        if upper[figure] is not None and lower[figure]
    ]
    return median(ratios) if ratios else None
