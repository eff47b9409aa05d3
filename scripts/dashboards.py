"""Writes the Grafana dashboards of monitoring/grafana/dashboards: `make dashboards`.

What they show is said here, in one line a panel, so that a change can be reviewed; the JSON is what
Grafana reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

FOLDER = Path(__file__).parent.parent / "monitoring" / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
RATE = "$__rate_interval"
PREDICT = 'endpoint=~"/predict.*"'
WIDTH, HEIGHT = 8, 8  # of 24 columns; three panels in a row


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


OVERVIEW = Page(
    "sentiment-overview",
    "Sentiment / overview",
    {
        "Requests": (
            Panel(
                "Requests by endpoint",
                "reqps",
                [Query(rate("http_requests_total", "endpoint"), "{{endpoint}}")],
            ),
            Panel(
                "Answers by status",
                "reqps",
                [Query(rate("http_requests_total", "status"), "{{status}}")],
                "499: the client left before its answer",
            ),
            Panel(
                "Prediction requests that fail",
                "percentunit",
                [
                    Query('slo:bad:ratio_rate5m{slo="availability"}', "5 minutes"),
                    Query('slo:bad:ratio_rate1h{slo="availability"}', "an hour"),
                ],
                "docs/slo.md: 0.1 % is the objective",
            ),
            Panel(
                "Time of a prediction request",
                "s",
                percentiles("http_request_duration_seconds", selector=PREDICT),
            ),
            Panel(
                "p95 by endpoint",
                "s",
                [
                    Query(
                        percentile(0.95, "http_request_duration_seconds", "endpoint"),
                        "{{endpoint}}",
                    )
                ],
            ),
            Panel(
                "Single predictions slower than 0.5 s",
                "percentunit",
                [
                    Query('slo:bad:ratio_rate5m{slo="latency"}', "5 minutes"),
                    Query('slo:bad:ratio_rate1h{slo="latency"}', "an hour"),
                ],
                "docs/slo.md: 1 % is the objective",
            ),
        ),
        "What is refused": (
            Panel(
                "For want of time, by reason",
                "reqps",
                [Query(rate("shed_requests_total", "reason"), "{{reason}}")],
                "503. docs/decisions/0015 tells the reasons",
            ),
            Panel(
                "Past a rate limit",
                "reqps",
                [Query(rate("rate_limited_requests_total", "limit"), "{{limit}}")],
                "429",
            ),
            Panel(
                "Timed out",
                "reqps",
                [Query(rate("timed_out_requests_total", "reason"), "{{reason}}")],
                "deadline: 504; body and headers: 408",
            ),
        ),
        "How full it is": (
            Panel(
                "Requests in progress",
                "short",
                [
                    Query(
                        "sum by (service_name) (bentoml_service_request_in_progress)",
                        "{{service_name}}",
                    )
                ],
            ),
            Panel(
                "Texts that wait for a model",
                "short",
                [Query("max by (version) (model_queued_texts)", "{{version}}")],
            ),
            Panel(
                "Wait for a model",
                "s",
                percentiles("model_queue_wait_seconds", "version"),
            ),
        ),
        "What runs": (
            Panel("Up", "short", [Query('up{job="sentiment"}', "{{instance}}")]),
            Panel("Runners", "short", [Query("min by (version) (runner_up)", "{{version}}")]),
            Panel(
                "Releases",
                "short",
                [
                    Query(
                        "max by (version, bentoml) (sentiment_build_info)",
                        "{{version}}, BentoML {{bentoml}}",
                    )
                ],
            ),
        ),
    },
)
MODEL = Page(
    "sentiment-model",
    "Sentiment / models",
    {
        "Predictions": (
            Panel(
                "By version",
                "ops",
                [Query(rate("model_predictions_total", "version"), "{{version}}")],
            ),
            Panel(
                "Share of each sentiment",
                "percentunit",
                [
                    Query(
                        f"{rate('model_predictions_total', 'version, sentiment')} / on (version) "
                        f"group_left {rate('model_predictions_total', 'version')}",
                        "{{version}} {{sentiment}}",
                    )
                ],
            ),
            Panel(
                "Confidence",
                "percentunit",
                [
                    Query(percentile(0.5, "model_confidence", "version"), "{{version}} median"),
                    Query(percentile(0.1, "model_confidence", "version"), "{{version}} p10"),
                ],
            ),
            Panel(
                "Revisions that answer",
                "short",
                [
                    Query(
                        "max by (version, revision, engine) (model_revision_info) == 1",
                        "{{version}} {{revision}} {{engine}}",
                    )
                ],
            ),
        ),
        "Work": (
            Panel(
                "Time of a batch", "s", percentiles("model_inference_duration_seconds", "version")
            ),
            Panel(
                "Texts in a batch",
                "short",
                [Query(mean("model_batch_texts", "version"), "{{version}}")],
            ),
            Panel(
                "Tokens in a batch, padding included",
                "short",
                [Query(mean("model_batch_tokens", "version"), "{{version}}")],
            ),
            Panel(
                "Padding",
                "percentunit",
                [
                    Query(
                        f"""{rate('model_tokens_total{kind="padding"}', "version")} / """
                        f"{rate('model_tokens_total', 'version')}",
                        "{{version}}",
                    )
                ],
                "The share of the computed tokens that is for nothing",
            ),
            Panel(
                "Texts nobody waited for any more",
                "ops",
                [Query(rate("model_abandoned_texts_total", "version"), "{{version}}")],
            ),
            Panel(
                "Calls of a runner",
                "ops",
                [Query(rate("runner_calls_total", "version"), "{{version}}")],
            ),
        ),
        "Rollout": (
            Panel(
                "Share of the subjects",
                "percent",
                [Query("max by (version) (rollout_share_percent)", "{{version}}")],
                "Of /predict/ab",
            ),
            Panel(
                "Policy",
                "short",
                [
                    Query("max(rollout_policy_version)", "version"),
                    Query("max(rollout_policy_frozen)", "frozen"),
                    Query("max by (version) (model_change_refused)", "{{version}} refused"),
                ],
                "Who changed what: GET /admin/rollout/history",
            ),
            Panel(
                "Texts asked in the shadow",
                "ops",
                [Query(rate("shadow_texts_total", "outcome"), "{{outcome}}")],
                "Of the challenger, behind the back of /predict",
            ),
        ),
        "Whether anything has changed": (
            Panel(
                "Drift (PSI)",
                "short",
                [Query("max by (version, feature) (model_drift_psi)", "{{version}} {{feature}}")],
                "The last hour against the week before it; above 0.2 is significant",
            ),
            Panel(
                "Drift that would be noise",
                "short",
                [
                    Query(
                        "max by (version, feature) (model_drift_psi_noise)",
                        "{{version}} {{feature}}",
                    )
                ],
            ),
            Panel(
                "Texts that v1 and v2 agree on",
                "percentunit",
                [
                    Query(
                        'sum(increase(model_comparisons_total{agreement="agree"}[1h])) / '
                        "sum(increase(model_comparisons_total[1h]))",
                        "an hour",
                    )
                ],
                "Of /predict/ab-compare",
            ),
        ),
    },
)
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
LOG = Page(
    "sentiment-log",
    "Sentiment / database and log",
    {
        "Prediction log": (
            Panel(
                "Predictions",
                "ops",
                [
                    Query(f"sum(rate(prediction_log_recorded_total[{RATE}]))", "on local disk"),
                    Query(f"sum(rate(prediction_log_stored_total[{RATE}]))", "in PostgreSQL"),
                ],
            ),
            Panel(
                "How far PostgreSQL is behind",
                "s",
                [Query("max by (instance) (prediction_log_spool_age_seconds)", "{{instance}}")],
            ),
            Panel(
                "What waits on local disk",
                "bytes",
                [
                    Query("max by (instance) (prediction_log_spool_bytes)", "{{instance}}"),
                    Query("max by (instance) (prediction_log_max_bytes)", "at most"),
                ],
            ),
            Panel(
                "Predictions lost or set aside",
                "short",
                [
                    Query(f"sum(increase(prediction_log_dropped_total[{RATE}]))", "dropped"),
                    Query(f"sum(increase(prediction_log_rejected_total[{RATE}]))", "rejected"),
                ],
            ),
        ),
        "PostgreSQL": (
            Panel(
                "Round trips by kind",
                "ops",
                [Query(rate("db_queries_total", "type"), "{{type}}")],
            ),
            Panel("Time of a query", "s", percentiles("db_query_duration_seconds", "type")),
        ),
    },
)
PAGES = (OVERVIEW, MODEL, CACHE, LOG)


def dashboard(page: Page) -> Dashboard:
    made = (
        Dashboard(page.title)
        .uid(page.uid)
        .tags(["sentiment"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("source").label("Data source").type("prometheus"))
    )
    for title, panels in page.rows.items():
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return made


def _panel(panel: Panel) -> TimeseriesPanel:
    made = (
        TimeseriesPanel()
        .title(panel.title)
        .description(panel.help)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(8)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for query in panel.queries:
        made = made.with_target(
            Dataquery().expr(query.expression).legend_format(query.legend).range()
        )
    return made


def dashboards() -> Iterator[tuple[str, str]]:
    """The name of each file, and what is in it."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    for page in PAGES:
        yield f"{page.uid}.json", encoder.encode(dashboard(page).build()) + "\n"


def expressions() -> Iterator[str]:
    """Every query of every panel."""
    for page in PAGES:
        for panels in page.rows.values():
            for panel in panels:
                yield from (query.expression for query in panel.queries)


def main() -> None:
    for name, text in dashboards():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
