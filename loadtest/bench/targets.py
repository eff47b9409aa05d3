"""The required figures, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.bench.plan import BASE, STARTER, THINKING
from loadtest.bench.servers import BASELINE, OURS, PEER
from loadtest.traffic import Kind

Summary = dict[str, list[dict[str, Any]]]
Value = Callable[[Summary], float | None]


@dataclass(frozen=True)
class Target:
    """A figure that has to be at least, or at most, `bound`; `value` gives None if not measured."""

    name: str
    unit: str
    bound: float
    value: Value
    at_most: bool = False

    def evaluate(self, summary: Summary) -> dict[str, Any]:
        """The target's entry of a record; `met` is None if it was not measured."""
        value = self.value(summary)
        met = (
            None if value is None else value <= self.bound if self.at_most else value >= self.bound
        )
        return {
            "name": self.name,
            "required": f"{'<=' if self.at_most else '>='} {self.bound:g} {self.unit}".strip(),
            "measured": value,
            "met": met,
        }


def _times(kind: Kind, clients: int, server: str, figure: str, size: str = STARTER) -> Value:
    def value(summary: Summary) -> float | None:
        found = _cell(summary, size, kind, clients)
        times = found["times"].get(server) if found else None
        ratio: float | None = times[figure] if times else None
        return ratio

    return value


def _ours(
    kind: Kind, clients: int, figure: str, *, think: tuple[float, float] = (0.0, 0.0)
) -> Value:
    def value(summary: Summary) -> float | None:
        found = _cell(summary, STARTER, kind, clients, think)
        measured: float | None = found["servers"][OURS][figure] if found else None
        return measured

    return value


def _cell(
    summary: Summary, size: str, kind: Kind, clients: int, think: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any] | None:
    cell = (size, kind.value, clients, list(think))
    for row in summary.get("service", []):
        if (row["size"], row["traffic"], row["clients"], row["think_seconds"]) == cell:
            return row
    return None


def _our_failures(summary: Summary) -> float | None:
    rows = [row["servers"][OURS] for row in summary.get("service", [])]
    rows += summary.get("cost", []) + summary.get("beside_the_engine", [])
    return sum(row["failures"] for row in rows) if rows else None


def _share_of_the_engine(summary: Summary) -> float | None:
    rows = summary.get("beside_the_engine", [])
    share: float | None = rows[0]["share"] if rows else None
    return share


def _start(size: str, figure: str) -> Value:
    def value(summary: Summary) -> float | None:
        for row in summary.get("start", []):
            if row["size"] == size:
                measured: float | None = row[figure]
                return measured
        return None

    return value


def _default_engine(size: str, texts: int, tokens: int) -> Value:
    """Speed relative to torch; the default engine is the first of a model, so measured first."""

    def value(summary: Summary) -> float | None:
        shape = (size, texts, tokens)
        ratios = (
            row["ratio"]
            for row in summary.get("engines", [])
            if (row["size"], row["texts"], row["tokens"]) == shape
        )
        return next(ratios, None)

    return value


TARGETS = (
    Target("texts/s, 32x24, starter size: default engine / torch fp32", "x", 4.0,
           _default_engine(STARTER, 32, 24)),
    Target("texts/s, 32x24, base size: default engine / torch fp32", "x", 5.0,
           _default_engine(BASE, 32, 24)),
    Target("requests/s, mixed, 100 clients: ours / baseline", "x", 20.0,
           _times(Kind.mixed, 100, BASELINE, "requests_per_second")),
    Target("p95, mixed, 100 clients: baseline / ours", "x", 30.0,
           _times(Kind.mixed, 100, BASELINE, "p95_ms")),
    Target("p50, mixed, 100 clients that think 1-3 s", "ms", 10.0,
           _ours(Kind.mixed, 100, "p50_ms", think=THINKING), at_most=True),
    Target("p95, mixed, 100 clients that think 1-3 s", "ms", 50.0,
           _ours(Kind.mixed, 100, "p95_ms", think=THINKING), at_most=True),
    Target("requests/s, distinct, 64 clients, base size: ours / LitServe", "x", 5.0,
           _times(Kind.distinct, 64, PEER, "requests_per_second", BASE)),
    Target("p50, distinct, 64 clients, base size: LitServe / ours", "x", 5.0,
           _times(Kind.distinct, 64, PEER, "p50_ms", BASE)),
    Target("requests/s, distinct, 64 clients", "/s", 600.0,
           _ours(Kind.distinct, 64, "requests_per_second")),
    Target("p99, distinct, 64 clients", "ms", 200.0,
           _ours(Kind.distinct, 64, "p99_ms"), at_most=True),
    Target("requests/s, cached, 8 clients", "/s", 1_300.0,
           _ours(Kind.repeated, 8, "requests_per_second")),
    Target("p50, cached, 8 clients", "ms", 3.0,
           _ours(Kind.repeated, 8, "p50_ms"), at_most=True),
    Target("texts/s, batches of 100: ours / its engine alone at its best", "x", 0.70,
           _share_of_the_engine),
    Target("start to ready", "s", 5.0, _start(STARTER, "ready_seconds"), at_most=True),
    Target("resident under load, starter size", "MiB", 900.0,
           _start(STARTER, "loaded_rss_mib"), at_most=True),
    Target("resident under load, base size", "MiB", 2_048.0,
           _start(BASE, "loaded_rss_mib"), at_most=True),
    Target("failed requests of ours", "", 0.0, _our_failures, at_most=True),
)  # fmt: skip
