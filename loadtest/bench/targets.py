"""The required figures, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from loadtest.bench.peers import INFINITY, LITSERVE, LITSERVE_BEST
from loadtest.bench.plan import BASE, STARTER, THINKING
from loadtest.bench.servers import BASELINE, OURS
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


def _figure(part: str, *path: str, **cell: Any) -> Value:
    """The figure at `path` in the first row of a part with the values of `cell`."""

    def value(summary: Summary) -> float | None:
        for row in summary.get(part, []):
            if all(row[key] == wanted for key, wanted in cell.items()):
                found: Any = row
                for key in path:
                    found = None if found is None else found.get(key)
                return cast("float | None", found)
        return None

    return value


def _service(
    kind: Kind, clients: int, *path: str, size: str = STARTER, think: tuple[float, float] = (0, 0)
) -> Value:
    cell = {"size": size, "traffic": kind, "clients": clients, "think_seconds": list(think)}
    return _figure("service", *path, **cell)


def _default_engine(size: str) -> Value:
    """Speed relative to torch; the default engine is the first of a model, so measured first."""
    return _figure("engines", "ratio", size=size, texts=32, tokens=24)


def _our_failures(summary: Summary) -> float | None:
    rows = [row["servers"][OURS] for row in summary.get("service", [])]
    rows += summary.get("cost", []) + summary.get("beside_the_engine", [])
    return sum(row["failures"] for row in rows) if rows else None


_THROUGHPUT = "requests_per_second"
TARGETS = (
    Target("texts/s, 32x24, base size: default engine / torch fp32", "x", 6.0,
           _default_engine(BASE)),
    Target("requests/s, distinct, 64 clients: ours / LitServe in bf16", "x", 2.4,
           _service(Kind.distinct, 64, "times", LITSERVE_BEST, _THROUGHPUT)),
    Target("requests/s, distinct, 64 clients: ours / infinity", "x", 4.0,
           _service(Kind.distinct, 64, "times", INFINITY, _THROUGHPUT)),
    Target("requests/s, distinct, 64 clients: ours / baseline", "x", 6.5,
           _service(Kind.distinct, 64, "times", BASELINE, _THROUGHPUT)),
    Target("requests/s, mixed, 100 clients: ours / baseline", "x", 8.0,
           _service(Kind.mixed, 100, "times", BASELINE, _THROUGHPUT)),
    Target("p95, mixed, 100 clients: baseline / ours", "x", 7.0,
           _service(Kind.mixed, 100, "times", BASELINE, "p95_ms")),
    *(Target(f"requests/s, cached, {clients} clients: ours / baseline", "x", 1.2,
             _service(Kind.repeated, clients, "times", BASELINE, _THROUGHPUT))
      for clients in (1, 8, 64)),
    Target("p50, mixed, 100 clients that think 1-3 s", "ms", 10.0,
           _service(Kind.mixed, 100, "servers", OURS, "p50_ms", think=THINKING), at_most=True),
    Target("p95, mixed, 100 clients that think 1-3 s", "ms", 50.0,
           _service(Kind.mixed, 100, "servers", OURS, "p95_ms", think=THINKING), at_most=True),
    Target("requests/s, distinct, 64 clients, base size: ours / LitServe", "x", 5.0,
           _service(Kind.distinct, 64, "times", LITSERVE, _THROUGHPUT, size=BASE)),
    Target("p99, distinct, 64 clients", "ms", 200.0,
           _service(Kind.distinct, 64, "servers", OURS, "p99_ms"), at_most=True),
    Target("texts/s, batches of 100: ours / its engine alone at its best", "x", 0.95,
           _figure("beside_the_engine", "share")),
    Target("start to ready", "s", 3.5,
           _figure("start", "ready_seconds", size=STARTER), at_most=True),
    Target("proportional memory under load, starter size", "MiB", 750.0,
           _figure("start", "loaded_pss_mib", size=STARTER), at_most=True),
    Target("resident under load, base size", "MiB", 2_048.0,
           _figure("start", "loaded_rss_mib", size=BASE), at_most=True),
    Target("failed requests of ours", "", 0.0, _our_failures, at_most=True),
)  # fmt: skip
