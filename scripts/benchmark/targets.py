"""The figures that are required, and whether a run met them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.traffic import Kind
from scripts.benchmark.plan import THINKING
from scripts.benchmark.servers import BASELINE, OURS, PEER

Summary = dict[str, list[dict[str, Any]]]
Value = Callable[[Summary], float | None]


@dataclass(frozen=True)
class Target:
    """`value` is to be at least, or at most, `bound`; it is None if it was not measured."""

    name: str
    unit: str
    bound: float
    value: Value
    at_most: bool = False

    def judge(self, summary: Summary) -> dict[str, Any]:
        """For a record; `met` is None if it was not measured."""
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


def _times(kind: Kind, clients: int, server: str) -> Value:
    def value(summary: Summary) -> float | None:
        found = _cell(summary, kind, clients)
        times = found["times"].get(server) if found else None
        ratio: float | None = times["requests_per_second"] if times else None
        return ratio

    return value


def _ours(
    kind: Kind, clients: int, figure: str, *, think: tuple[float, float] = (0.0, 0.0)
) -> Value:
    def value(summary: Summary) -> float | None:
        found = _cell(summary, kind, clients, think)
        measured: float | None = found["servers"][OURS][figure] if found else None
        return measured

    return value


def _cell(
    summary: Summary, kind: Kind, clients: int, think: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any] | None:
    wanted = (kind.value, clients, list(think))
    for row in summary.get("service", []):
        if (row["traffic"], row["clients"], row["think_seconds"]) == wanted:
            return row
    return None


def _our_failures(summary: Summary) -> float | None:
    rows = [row["servers"][OURS] for row in summary.get("service", [])]
    rows += summary.get("cost", []) + summary.get("beside_the_engine", [])
    return sum(row["failures"] for row in rows) if rows else None


def _first(part: str, figure: str) -> Value:
    def value(summary: Summary) -> float | None:
        measured: float | None = summary[part][0][figure] if part in summary else None
        return measured

    return value


def _fastest_engine(size: str, texts: int, tokens: int) -> Value:
    def value(summary: Summary) -> float | None:
        wanted = (size, texts, tokens)
        ratios = [
            row["ratio"]
            for row in summary.get("engines", [])
            if (row["size"], row["texts"], row["tokens"]) == wanted
        ]
        return max(ratios, default=None)

    return value


TARGETS = (
    Target("requests/s, distinct texts, 64 clients: ours / baseline", "x", 5.0,
           _times(Kind.distinct, 64, BASELINE)),
    Target("requests/s, distinct texts, 64 clients: ours / LitServe", "x", 2.0,
           _times(Kind.distinct, 64, PEER)),
    Target("requests/s, cached texts, 8 clients: ours / baseline", "x", 2.0,
           _times(Kind.repeated, 8, BASELINE)),
    Target("requests/s, mixed, 100 clients: ours / baseline", "x", 5.0,
           _times(Kind.mixed, 100, BASELINE)),
    Target("p50, mixed, 100 clients that think 1-3 s", "ms", 76.0,
           _ours(Kind.mixed, 100, "p50_ms", think=THINKING), at_most=True),
    Target("p95, mixed, 100 clients that think 1-3 s", "ms", 500.0,
           _ours(Kind.mixed, 100, "p95_ms", think=THINKING), at_most=True),
    Target("texts/s, batches of 100: ours / its engine alone", "x", 0.85,
           _first("beside_the_engine", "share")),
    Target("fastest engine / torch fp32, base size, 32x24", "x", 2.0,
           _fastest_engine("base", 32, 24)),
    Target("failed requests of ours", "", 0.0, _our_failures, at_most=True),
    Target("start to ready", "s", 10.0, _first("start", "ready_seconds"), at_most=True),
)  # fmt: skip
