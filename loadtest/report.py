"""What came back of a load: answers, failures, latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

PERCENTILES = (50, 95, 99)


def percentile_ms(seconds: Sequence[float], percent: int) -> Any:
    """The percentile in milliseconds; None of nothing."""
    if not seconds:
        return None
    return round(1_000 * sorted(seconds)[len(seconds) * percent // 100], 2)


@dataclass
class LoadReport:
    """Of the `seconds` that count. `failures` are counted by status, or by what went wrong.

    A latency is that of an answer which arrived in those seconds. A failure is also one that came
    after them, of a request still under way at their end. `requests` and `texts` are those that
    were answered, each with the share of its time that lies in those seconds: with answers that
    take as long as the seconds last, counting arrivals would be off by as much as there are
    clients.
    """

    seconds: float = 0.0
    latencies_seconds: list[float] = field(default_factory=list)
    requests: float = 0.0
    texts: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    warm_up_failures: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0  # of the load generator itself

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    def figures(self) -> dict[str, Any]:
        """One flat object, for a record."""
        latencies = self.latencies_seconds
        return {
            "seconds": round(self.seconds, 3),
            "answers": len(latencies),
            "failures": dict(self.failures),
            "warm_up_failures": dict(self.warm_up_failures),
            "requests_per_second": round(self.requests_per_second, 2),
            "texts_per_second": round(self.texts / self.seconds, 2),
            "mean_ms": round(1_000 * fmean(latencies), 2) if latencies else None,
            **{f"p{percent}_ms": percentile_ms(latencies, percent) for percent in PERCENTILES},
            "generator_cpu_share": round(self.cpu_seconds / self.seconds, 3),
        }
