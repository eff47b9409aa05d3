"""Summaries of the measured rows: medians over the rounds, and ratios within a round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from loadtest.bench.servers import OURS

Row = dict[str, Any]
Rows = Sequence[Row]


def summarise(rows: Rows) -> dict[str, list[Row]]:
    """A list for each part that was measured; `rows` are those of a whole run."""
    beside = [row | {"part": "beside"} for row in rows if row.get("engine_rows")]
    cost = [row for row in rows if not row.get("engine_rows")]
    parts = {
        "peak": map(_peak, _groups(rows, "peak", "precision")),
        "engines": map(_engine, _groups(rows, "engines", "size", "engine", "texts", "tokens")),
        "service": map(
            _service, _groups(rows, "service", "size", "traffic", "clients", "think_seconds")
        ),
        "cost": (_cost(row) for row in cost if row["part"] == "cost"),
        "beside_the_engine": map(_beside_the_engine, _groups(beside, "beside")),
        "start": map(_start, _groups(rows, "start", "size")),
    }
    return {name: found for name, summaries in parts.items() if (found := list(summaries))}


def _peak(rounds: Rows) -> Row:
    return {
        **_pick(rounds[0], "precision"),
        **_medians(rounds, "billion_multiply_adds_per_second"),
    }


def _engine(rounds: Rows) -> Row:
    return {
        **_pick(rounds[0], "size", "engine", "texts", "tokens"),
        **_medians(rounds, "texts_per_second", "reference_texts_per_second", "batch_alone_ms"),
        "ratio": _ratio(rounds, "texts_per_second", rounds, "reference_texts_per_second"),
        "batch_alone_ratio": _ratio(rounds, "reference_batch_alone_ms", rounds, "batch_alone_ms"),
    }


def _service(rounds: Rows) -> Row:
    """One traffic and number of clients; `times` is how many times ours is better."""
    servers: dict[str, list[Row]] = {}
    for row in rounds:
        servers.setdefault(row["server"], []).append(row)
    ours, speed, latencies = servers[OURS], "requests_per_second", ("p50_ms", "p95_ms", "p99_ms")
    return {
        **_pick(rounds[0], "size", "traffic", "clients", "think_seconds"),
        "servers": {
            name: _medians(found, speed, "texts_per_second", *latencies)
            | {"failures": _failures(found)}
            for name, found in servers.items()
        },
        "times": {
            name: {speed: _ratio(ours, speed, found, speed)}
            | {latency: _ratio(found, latency, ours, latency) for latency in latencies}
            for name, found in servers.items()
            if name != OURS
        },
    }


def _cost(row: Row) -> Row:
    return {
        **_pick(row, "grows", "size", "clients", "texts_per_second", "p50_ms", "p95_ms"),
        "ms_per_text": 1_000 / row["texts_per_second"] if row["texts_per_second"] else None,
        "failures": _failures([row]),
    }


def _beside_the_engine(rounds: Rows) -> Row:
    return {
        **_pick(rounds[0], "engine", "engine_rows", "batch_texts", "clients"),
        **_medians(rounds, "texts_per_second", "engine_texts_per_second", "p50_ms"),
        "share": _ratio(rounds, "texts_per_second", rounds, "engine_texts_per_second"),
        "failures": _failures(rounds),
    }


def _start(rounds: Rows) -> Row:
    figures = ("ready_seconds", "idle_rss_mib", "idle_pss_mib", "loaded_rss_mib", "loaded_pss_mib")
    return _pick(rounds[0], "size") | _medians(rounds, *figures)


def _groups(rows: Rows, part: str, *keys: str) -> Iterable[list[Row]]:
    """Rows of a part that agree in `keys`, the groups in the order of their first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["part"] == part:
            groups.setdefault(repr(_pick(row, *keys)), []).append(row)
    return groups.values()


def _pick(row: Row, *keys: str) -> Row:
    return {key: row[key] for key in keys}


def _failures(rows: Rows) -> int:
    """Failed requests, those of the warm-up too."""
    return sum(sum((*row["failures"].values(), *row["warm_up_failures"].values())) for row in rows)


def _medians(rounds: Rows, *keys: str) -> Row:
    """None where no round has a figure: with no answer there is no latency."""
    values = {key: [row[key] for row in rounds if row[key] is not None] for key in keys}
    return {key: median(found) if found else None for key, found in values.items()}


def _ratio(above: Rows, upper: str, below: Rows, lower: str) -> float | None:
    """The median over the rounds of the ratio of what was measured in the same round."""
    ratios = [
        over[upper] / under[lower]
        for over, under in zip(above, below, strict=True)
        if over[upper] is not None and under[lower]
    ]
    return median(ratios) if ratios else None
