"""The parts of a Grafana dashboard: its variables, rows of panels, and the PromQL they share.

Every query is about the namespaces, jobs and instances that are chosen. A quiet service shows 0:
its series are there from the start (`serving.first_series`), and no query divides by 0.
"""

from __future__ import annotations

from string import ascii_uppercase

from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 8, 8  # of 24 columns; three panels in a row
RATE = "$__rate_interval"
CHOSEN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
# Less than any rate but 0: one request in three days.
LEAST_RATE = "1e-9"
# Any value, and a label that is missing: only Kubernetes has namespaces.
ANY = ".*"


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
        .with_variable(_choice("namespace", "sentiment_build_info").all_value(ANY))
        # All of them are those of this service: `up` is every job's.
        .with_variable(_choice("job", 'sentiment_build_info{namespace=~"$namespace"}'))
        .with_variable(
            _choice("instance", 'up{namespace=~"$namespace",job=~"$job"}').all_value(ANY)
        )
    )
    for part in parts:
        made = made.with_row(part) if isinstance(part, Row) else made.with_panel(part)
    return made


def _choice(label: str, series: str) -> QueryVariable:
    """A variable of the values that a label has in `series`; all of them at first."""
    return (
        QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({series}, {label})")
        .multi(multi=True)
        .include_all(include_all=True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def panel(
    title: str, unit: str, *queries: Dataquery, note: str = "", line: float | None = None
) -> Panel:
    """A time series; `unit` is Grafana's name of it, `line` a value that it should not pass."""
    legend = VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True)
    tooltip = VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
    made = (
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
        .targets([each.ref_id(name) for each, name in zip(queries, ascii_uppercase, strict=False)])
    )
    if line is not None:
        steps = [Threshold(value=None, color="transparent"), Threshold(value=line, color="red")]
        dashed = options.GraphTresholdsStyleMode.DASHED
        made = made.thresholds(
            ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        ).thresholds_style(GraphThresholdsStyleConfig().mode(dashed))
    return made


def query(expression: str, legend: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).range()


def chosen(metric: str, matchers: str = "") -> str:
    """The series of a metric that the variables choose."""
    return f"{metric}{{{CHOSEN}{',' if matchers else ''}{matchers}}}"


def by(aggregate: str, metric: str, *labels: str, legend: str = "") -> Dataquery:
    """An aggregate of a gauge by `labels`, which are the legend too."""
    return query(
        f"{aggregate} by ({', '.join(labels)}) ({chosen(metric)})", legend or _names(*labels)
    )


def _names(*labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def rates(counter: str, label: str) -> Dataquery:
    return query(rate(counter, label), _names(label))


def total(counter: str, legend: str, function: str = "rate") -> Dataquery:
    return query(f"sum({function}({chosen(counter)}[{RATE}]))", legend)


def rate(counter: str, labels: str = "", matchers: str = "", window: str = RATE) -> str:
    aggregate = f"sum by ({labels}) " if labels else "sum"
    return f"{aggregate}(rate({chosen(counter, matchers)}[{window}]))"


def ratio(part: str, whole: str, matching: str = "") -> str:
    """The share of one rate in another; 0 where both are 0, which a plain division makes NaN."""
    return f"{part} / {matching}{' ' if matching else ''}clamp_min({whole}, {LEAST_RATE})"


def percentile(share: float, histogram: str, label: str = "", matchers: str = "") -> str:
    """A percentile, or 0 where nothing was measured, which is NaN otherwise."""
    buckets = rate(f"{histogram}_bucket", f"{label}, le" if label else "le", matchers)
    counts = rate(f"{histogram}_count", label, matchers)
    return f"histogram_quantile({share:g}, {buckets}) >= 0 or 0 * {counts}"


def percentiles(histogram: str, label: str = "", matchers: str = "") -> list[Dataquery]:
    legend = f"{_names(label)} " if label else ""
    return [
        query(percentile(share, histogram, label, matchers), f"{legend}p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def mean(histogram: str, label: str) -> Dataquery:
    sums, counts = rate(f"{histogram}_sum", label), rate(f"{histogram}_count", label)
    return query(ratio(sums, counts), _names(label))


def known(metric: str, *labels: str) -> Dataquery:
    """The largest of a gauge that is NaN while its value is not known: 0 then."""
    grouped = f"max by ({', '.join(labels)})"
    return query(
        f"{grouped} ({chosen(metric)}) >= 0 or 0 * {grouped} (timestamp({chosen(metric)}))",
        _names(*labels),
    )
