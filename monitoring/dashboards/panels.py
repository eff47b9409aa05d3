"""What a dashboard is made of, and the PromQL that its panels share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RATE = "$__rate_interval"
PREDICT = 'endpoint=~"/predict.*"'


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str  # as Grafana names it
    queries: Sequence[Query]
    help: str = ""


@dataclass(frozen=True)
class Page:
    """A dashboard; its panels by rows."""

    uid: str
    title: str
    rows: dict[str, Sequence[Panel]]


def rate(of: str, by: str) -> str:
    return f"sum by ({by}) (rate({of}[{RATE}]))"


def percentile(share: float, histogram: str, by: str = "", selector: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    of = f"{histogram}_bucket{{{selector}}}" if selector else f"{histogram}_bucket"
    return f"histogram_quantile({share:g}, {rate(of, labels)})"


def percentiles(histogram: str, by: str = "", selector: str = "") -> list[Query]:
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        Query(percentile(share, histogram, by, selector), f"{legend}p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def mean(histogram: str, by: str) -> str:
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"
