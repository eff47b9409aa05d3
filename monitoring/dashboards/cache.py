"""What caches spare."""

from __future__ import annotations

from monitoring.dashboards.panels import RATE, Page, Panel, Query, rate

CACHE = Page(
    "sentiment-cache",
    "Sentiment / cache",
    {
        "Cache": (
            Panel(
                "Texts found",
                "percentunit",
                [
                    Query(
                        f"sum(rate(cache_hits_total[{RATE}])) / "
                        f"sum(rate(cache_hits_total[{RATE}]) + rate(cache_misses_total[{RATE}]))",
                        "hits",
                    )
                ],
            ),
            Panel(
                "Lookups",
                "ops",
                [
                    Query(f"sum(rate(cache_hits_total[{RATE}]))", "hits"),
                    Query(f"sum(rate(cache_misses_total[{RATE}]))", "misses"),
                ],
            ),
            Panel(
                "Misses that joined one under way",
                "ops",
                [Query(f"sum(rate(cache_single_flight_joins_total[{RATE}]))", "joins")],
            ),
        ),
        "Redis": (
            Panel(
                "Failures by operation",
                "ops",
                [Query(rate("redis_errors_total", "operation"), "{{operation}}")],
                "While Redis is away a circuit breaker keeps them few",
            ),
        ),
    },
)
