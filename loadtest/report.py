"""What came back of a load: answers, failures, latencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any


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
    failures: dict[str, int] = field(default_factory=dict)
    warm_up_failures: dict[str, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0  # of the load generator itself

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    def percentile_ms(self, share: float) -> float | None:
        """None if there was no answer."""
        if not self.latencies_seconds:
            return None
        ordered = sorted(self.latencies_seconds)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def figures(self) -> dict[str, Any]:
        """One flat object, for a record."""
        latencies = self.latencies_seconds
        return {
            "seconds": round(self.seconds, 3),
            "answers": len(latencies),
            "failures": self.failures,
            "warm_up_failures": self.warm_up_failures,
            "requests_per_second": round(self.requests_per_second, 2),
            "texts_per_second": round(self.texts / self.seconds, 2),
            "mean_ms": round(1_000 * fmean(latencies), 2) if latencies else None,
            **{
                f"p{percent}_ms": None if value is None else round(value, 2)
                for percent in (50, 95, 99)
                for value in [self.percentile_ms(percent / 100)]
            },
            "generator_cpu_share": round(self.cpu_seconds / self.seconds, 3),
        }

    def __str__(self) -> str:
        latencies = ", ".join(
            f"p{percent} {self.percentile_ms(percent / 100) or 0:.0f} ms"
            for percent in (50, 95, 99)
        )
        return (
            f"{len(self.latencies_seconds)} answers, {sum(self.failures.values())} failures "
            f"{self.failures or ''} in {self.seconds:.0f} s: {self.requests_per_second:.0f}/s, "
            f"{latencies}"
        )
