"""The parts of a Grafana dashboard: rows of panels, and the PromQL that they share."""

from __future__ import annotations

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 8, 8  # of 24 columns; three panels in a row
RATE = "$__rate_interval"


def page(uid: str, title: str, *parts: Row | Panel) -> Dashboard:
    """A dashboard; each `Row` is the heading of the panels that follow it."""
    made = (
        Dashboard(title)
        .uid(uid)
        .tags(["sentiment"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("source").label("Data source").type("prometheus"))
    )
    for part in parts:
        made = made.with_row(part) if isinstance(part, Row) else made.with_panel(part)
    return made


def panel(title: str, unit: str, *queries: Dataquery, note: str = "") -> Panel:
    """A time series; `unit` is Grafana's name of it."""
    legend = VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True)
    tooltip = VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
    return (
        Panel()
        .title(title)
        .description(note)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(8)
        .legend(legend.placement(options.LegendPlacement.BOTTOM))
        .tooltip(tooltip.sort(options.SortOrder.DESCENDING))
        .targets(list(queries))
    )


def query(expression: str, legend: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).range()


def by(aggregate: str, metric: str, *labels: str, legend: str = "") -> Dataquery:
    """An aggregate of `metric` by `labels`, which are the legend too."""
    legend = legend or " ".join(f"{{{{{label}}}}}" for label in labels)
    return query(f"{aggregate} by ({', '.join(labels)}) ({metric})", legend)


def rates(counter: str, label: str) -> Dataquery:
    return by("sum", f"rate({counter}[{RATE}])", label)


def total(counter: str, legend: str, function: str = "rate") -> Dataquery:
    return query(f"sum({function}({counter}[{RATE}]))", legend)


def rate(counter: str, labels: str) -> str:
    return f"sum by ({labels}) (rate({counter}[{RATE}]))"


def percentile(share: float, histogram: str, label: str = "", selector: str = "") -> str:
    labels = f"{label}, le" if label else "le"
    buckets = f"{histogram}_bucket{{{selector}}}" if selector else f"{histogram}_bucket"
    return f"histogram_quantile({share:g}, {rate(buckets, labels)})"


def percentiles(histogram: str, label: str = "", selector: str = "") -> list[Dataquery]:
    legend = f"{{{{{label}}}}} " if label else ""
    return [
        query(percentile(share, histogram, label, selector), f"{legend}p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def mean(histogram: str, label: str) -> Dataquery:
    sums, counts = rate(f"{histogram}_sum", label), rate(f"{histogram}_count", label)
    return query(f"{sums} / {counts}", f"{{{{{label}}}}}")
