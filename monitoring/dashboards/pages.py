"""The four Grafana dashboards, in about one line a panel.

A reviewer reads these lines; Grafana reads the JSON beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards.objectives import ERROR_BUDGETS, LATENCY_SECONDS
from monitoring.dashboards.panels import (
    by,
    chosen,
    known,
    mean,
    page,
    panel,
    percentile,
    percentiles,
    query,
    rate,
    rates,
    ratio,
    total,
)
from stats.drift import SIGNIFICANT_PSI

FOLDER = Path(__file__).parent
# As in monitoring/rules/service.yml.
LOG_BEHIND_SECONDS = 300.0

# With those of other systems' clients. tests/integration/monitoring compares it with the routes.
PREDICTIONS = 'endpoint=~"/predict.*|/v2/.*/infer|/tei.*|/invocations"'
# A batch takes seconds by its nature, so it has no latency objective.
SINGLE_PREDICTIONS = 'endpoint=~"/predict(/ab|/ab-compare)?"'
WINDOWS = (("5m", "5 minutes"), ("1h", "an hour"))


def failed_shares() -> list[Dataquery]:
    """The share of requests that miss the availability objective, as the rules record it."""
    return [
        query(
            ratio(
                rate("http_requests_total", "", f'{PREDICTIONS},status=~"5.."', window),
                rate("http_requests_total", "", PREDICTIONS, window),
            ),
            legend,
        )
        for window, legend in WINDOWS
    ]


def slow_shares() -> list[Dataquery]:
    """The share of requests that miss the latency objective, as the rules record it."""
    histogram = "http_request_duration_seconds"
    fast = f'{SINGLE_PREDICTIONS},le="{LATENCY_SECONDS:g}"'
    shares = []
    for window, legend in WINDOWS:
        all_requests = rate(f"{histogram}_count", "", SINGLE_PREDICTIONS, window)
        fast_requests = rate(f"{histogram}_bucket", "", fast, window)
        shares.append(query(ratio(f"({all_requests} - {fast_requests})", all_requests), legend))
    return shares


OVERVIEW = page(
    "sentiment-overview", "Sentiment / overview",
    Row("Requests"),
    panel("Requests by endpoint", "reqps", rates("http_requests_total", "endpoint")),
    panel("Answers by status", "reqps", rates("http_requests_total", "status"),
          note="499: the client left before its answer"),
    panel("Prediction requests that fail", "percentunit", *failed_shares(),
          line=ERROR_BUDGETS["availability"],
          note=f"The line is the error budget of docs/slo.md, {ERROR_BUDGETS['availability']:.1%}"),
    panel("Time of a prediction request", "s",
          *percentiles("http_request_duration_seconds", matchers=PREDICTIONS),
          line=LATENCY_SECONDS,
          note=f"The line is the objective of docs/slo.md, for {1 - ERROR_BUDGETS['latency']:.0%} "
               "of those with one text"),
    panel("p95 by endpoint", "s",
          query(percentile(0.95, "http_request_duration_seconds", "endpoint"), "{{endpoint}}")),
    panel(f"Single predictions slower than {LATENCY_SECONDS:g} s", "percentunit", *slow_shares(),
          line=ERROR_BUDGETS["latency"],
          note=f"The line is the error budget of docs/slo.md, {ERROR_BUDGETS['latency']:.0%}"),
    Row("What is refused"),
    panel("For want of time, by reason", "reqps", rates("shed_requests_total", "reason"),
          note="503; deadline: 504. docs/observability.md tells the reasons"),
    panel("Past a rate limit", "reqps", rates("rate_limited_requests_total", "limit"), note="429"),
    panel("Timed out", "reqps", rates("timed_out_requests_total", "reason"),
          note="deadline and client_deadline: 504; body and headers: 408"),
    Row("How full it is"),
    panel("Requests in progress", "short",
          by("sum", "bentoml_service_request_in_progress", "service_name")),
    panel("Texts that wait for a model", "short", by("max", "model_queued_texts", "version")),
    panel("Wait for a model", "s", *percentiles("model_queue_wait_seconds", "version")),
    Row("What runs"),
    panel("Up", "short", query(chosen("up"), "{{instance}}")),
    panel("Runners", "short", by("min", "runner_up", "version")),
    panel("Releases", "short",
          by("max", "sentiment_build_info", "version", "bentoml",
             legend="{{version}}, BentoML {{bentoml}}")),
)  # fmt: skip
MODEL = page(
    "sentiment-model", "Sentiment / models",
    Row("Predictions"),
    panel("By version", "ops", rates("model_predictions_total", "version")),
    panel("Share of each sentiment", "percentunit",
          query(ratio(rate("model_predictions_total", "version, sentiment"),
                      rate("model_predictions_total", "version"), "on (version) group_left"),
                "{{version}} {{sentiment}}")),
    panel("Confidence", "percentunit",
          query(percentile(0.5, "model_confidence", "version"), "{{version}} median"),
          query(percentile(0.1, "model_confidence", "version"), "{{version}} p10")),
    panel("Revisions that answer", "short",
          query(f"max by (version, revision, engine) ({chosen('model_revision_info')}) == 1",
                "{{version}} {{revision}} {{engine}}")),
    Row("Work"),
    panel("Time of a batch", "s", *percentiles("model_inference_duration_seconds", "version")),
    panel("Texts in a batch", "short", mean("model_batch_texts", "version")),
    panel("Tokens in a batch, padding included", "short", mean("model_batch_tokens", "version")),
    panel("Padding", "percentunit",
          query(ratio(rate("model_tokens_total", "version", 'kind="padding"'),
                      rate("model_tokens_total", "version")), "{{version}}"),
          note="The share of the computed tokens that is for nothing"),
    panel("Texts nobody waited for any more", "ops",
          rates("model_abandoned_texts_total", "version")),
    panel("Calls of a runner", "ops", rates("runner_calls_total", "version")),
    Row("Rollout"),
    panel("Share of the subjects", "percent", by("max", "rollout_share_percent", "version"),
          note="Of /predict/ab"),
    panel("Policy", "short",
          query(f"max({chosen('rollout_policy_version')})", "version"),
          query(f"max({chosen('rollout_policy_frozen')})", "frozen"),
          by("max", "model_change_refused", "version", legend="{{version}} refused"),
          note="Who changed what: GET /admin/rollout/history"),
    panel("Texts asked in the shadow", "ops", rates("shadow_texts_total", "outcome"),
          note="Of the challenger, behind the back of /predict"),
    Row("Whether anything has changed"),
    panel("Drift (PSI)", "short", known("model_drift_psi", "version", "feature"),
          line=SIGNIFICANT_PSI,
          note="The last hour against the week before it; 0 with too few predictions. Above the "
               "line it is significant, if it is no noise; content from 0.1 on"),
    panel("Drift that would be noise", "short",
          known("model_drift_psi_noise", "version", "feature"),
          note="0 with too few predictions"),
    panel("Texts that v1 and v2 agree on", "percentunit",
          query(ratio(rate("model_comparisons_total", "", 'agreement="agree"', "1h"),
                      rate("model_comparisons_total", window="1h")), "an hour"),
          note="Of /predict/ab-compare and shadow traffic; 0 without any"),
)  # fmt: skip
CACHE = page(
    "sentiment-cache", "Sentiment / cache",
    Row("Cache"),
    panel("Texts found", "percentunit",
          query(ratio(rate("cache_hits_total"),
                      f"{rate('cache_hits_total')} + {rate('cache_misses_total')}"), "hits"),
          note="0 without lookups"),
    panel("Lookups", "ops",
          total("cache_hits_total", "hits"), total("cache_misses_total", "misses")),
    panel("Misses that joined one under way", "ops",
          total("cache_single_flight_joins_total", "joins")),
    Row("Redis"),
    panel("Failures by operation", "ops", rates("redis_errors_total", "operation"),
          note="While Redis is away a circuit breaker keeps them few"),
)  # fmt: skip
LOG = page(
    "sentiment-log", "Sentiment / database and log",
    Row("Prediction log"),
    panel("Predictions", "ops",
          total("prediction_log_recorded_total", "on local disk"),
          total("prediction_log_stored_total", "in PostgreSQL")),
    panel("How far PostgreSQL is behind", "s",
          by("max", "prediction_log_spool_age_seconds", "instance"), line=LOG_BEHIND_SECONDS,
          note="Past the line LogBehind fires"),
    panel("What waits on local disk", "bytes",
          by("max", "prediction_log_spool_bytes", "instance"),
          by("max", "prediction_log_max_bytes", "instance", legend="at most")),
    panel("Predictions lost or set aside", "short",
          total("prediction_log_dropped_total", "dropped", "increase"),
          total("prediction_log_rejected_total", "rejected", "increase")),
    panel("Predictions of a spool that does not keep up", "short",
          by("max", "prediction_log_overdue_predictions", "instance", "spool"),
          note="PredictionsLeftBehind fires if a spool vanishes with some: docs/runbook.md"),
    Row("Sinks"),
    panel("Predictions handed on", "ops", rates("prediction_log_sink_delivered_total", "sink")),
    panel("How far a sink is behind", "s",
          by("max", "prediction_log_sink_overdue_seconds", "instance", "sink"),
          note="SinkBehind fires past 15 minutes"),
    panel("Predictions a second that are lost to a sink", "ops",
          rates("prediction_log_sink_lost_total", "sink")),
    Row("PostgreSQL"),
    panel("Round trips by kind", "ops", rates("db_queries_total", "type")),
    panel("Time of a query", "s", *percentiles("db_query_duration_seconds", "type")),
)  # fmt: skip


def dashboards() -> Iterator[tuple[str, str]]:
    """The name of each file, and its content."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    for dashboard in (made.build() for made in (OVERVIEW, MODEL, CACHE, LOG)):
        yield f"{dashboard.uid}.json", encoder.encode(dashboard) + "\n"
