"""Every Prometheus metric of the service, and how to read one back over all worker processes.

Bento sets PROMETHEUS_MULTIPROC_DIR before its workers start, so these count over all of them and
come out of Bento's own /metrics. Label values come from closed sets; never from a request.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # A worker is started, never forked, so its process id stays. Asking the kernel for it at every
    # increment took 8 % of a cached request.
    _pid = os.getpid()
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _pid)  # type: ignore[no-untyped-call]

LATENCY_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
CONFIDENCE_BUCKETS = (0.34, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
TOKEN_BUCKETS = (16, 32, 64, 128, 192, 256, 384, 512)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

http_requests = Counter(
    "http_requests_total", "HTTP requests by route template", ["endpoint", "status"]
)
http_request_duration = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of the request to the last of the reply",
    ["endpoint"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
timed_out_requests = Counter(
    "timed_out_requests_total",
    "Requests answered 504 because of their deadline, or 408 because their headers or body did "
    "not come",
    ["reason"],
)
predictions = Counter("model_predictions_total", "Predictions answered", ["sentiment", "version"])
inference_duration = Histogram(
    "model_inference_duration_seconds",
    "One batch in the engine",
    ["version"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
batch_texts = Histogram(
    "model_batch_texts", "Texts in one batch of a runner", ["version"], buckets=BATCH_BUCKETS
)
batch_tokens = Histogram(
    "model_batch_tokens",
    "Rows times the longest row of one batch of a runner",
    ["version"],
    buckets=TOKEN_BUCKETS,
)
tokens = Counter(
    "model_tokens_total",
    "Tokens that the engine computed; padding fills rows up to the longest of their batch",
    ["version", "kind"],
)
queued_texts = Gauge(
    "model_queued_texts",
    "Texts that wait in a runner",
    ["version"],
    multiprocess_mode="mostrecent",
)
queue_wait = Histogram(
    "model_queue_wait_seconds",
    "From a text's arrival at its runner to the start of its batch",
    ["version"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
abandoned_texts = Counter(
    "model_abandoned_texts_total",
    "Texts not computed because their client had left or their deadline had passed",
    ["version"],
)
shed_requests = Counter(
    "shed_requests_total", "Requests answered 503 because too much was asked", ["reason"]
)
runner_calls = Counter("runner_calls_total", "Calls of an API worker to a runner", ["version"])
runner_up = Gauge(
    "runner_up",
    "Whether the runner answered the API worker that asked it last",
    ["version"],
    multiprocess_mode="mostrecent",
)
runner_hosts = Gauge(
    "runner_hosts",
    "Runner hosts that answered the API worker that asked them last",
    ["version"],
    multiprocess_mode="mostrecent",
)
runner_failovers = Counter(
    "runner_failovers_total", "Calls that another host of the runner took over", ["version"]
)
revision_info = Gauge(
    "model_revision_info",
    "1 for what a version's runner holds, 0 for what it held before",
    ["version", "revision", "engine"],
    multiprocess_mode="mostrecent",
)
model_changes = Counter(
    "model_changes_total",
    "Models that a running runner was told to hold instead: done, or refused",
    ["version", "outcome"],
)
model_refused = Gauge(
    "model_change_refused",
    "1 while a runner does not hold the model that it was told to hold last",
    ["version"],
    multiprocess_mode="mostrecent",
)
rollout_policy_version = Gauge(
    "rollout_policy_version",
    "The rollout policy that the API process that looked last goes by; 0: the settings",
    multiprocess_mode="mostrecent",
)
rollout_policy_frozen = Gauge(
    "rollout_policy_frozen",
    "1 while PostgreSQL does not say which rollout policy is in force: the last known is",
    multiprocess_mode="mostrecent",
)
rollout_changes = Counter(
    "rollout_changes_total", "Rollout policies that were put in force", ["action"]
)
rollout_share = Gauge(
    "rollout_share_percent",
    "Share of the subjects of /predict/ab, by version",
    ["version"],
    multiprocess_mode="mostrecent",
)
shadow_texts = Counter(
    "shadow_texts_total",
    "Texts of /predict that the challenger was asked about too: compared, failed, or skipped for "
    "want of time",
    ["outcome"],
)
build_info = Gauge(
    "sentiment_build_info",
    "1; the labels tell what runs",
    ["version", "python", "bentoml"],
    multiprocess_mode="mostrecent",
)
comparisons = Counter(
    "model_comparisons_total", "Texts that both versions were asked about", ["agreement"]
)
# NaN, which no alert is above, while there are too few predictions to tell.
drift_psi = Gauge(
    "model_drift_psi",
    "Population Stability Index of the last hour against the week before it",
    ["version", "feature"],
    multiprocess_mode="mostrecent",
)
drift_psi_noise = Gauge(
    "model_drift_psi_noise",
    "What samples of these sizes pass in 1 % of comparisons without any drift",
    ["version", "feature"],
    multiprocess_mode="mostrecent",
)
confidence = Histogram(
    "model_confidence", "Confidence of predictions", ["version"], buckets=CONFIDENCE_BUCKETS
)
cache_hits = Counter("cache_hits_total", "Texts answered from the cache")
cache_misses = Counter("cache_misses_total", "Texts that were not in the cache")
cache_joins = Counter(
    "cache_single_flight_joins_total", "Misses that waited for the same text already in flight"
)
cache_writes_dropped = Counter(
    "cache_writes_dropped_total", "Answers not cached because too many waited for Redis"
)
redis_errors = Counter("redis_errors_total", "Failed Redis operations", ["operation"])
rate_limited = Counter("rate_limited_requests_total", "Requests answered 429", ["limit"])
db_queries = Counter("db_queries_total", "Database round trips", ["type"])
db_query_duration = Histogram(
    "db_query_duration_seconds",
    "One database round trip",
    ["type"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
log_recorded = Counter("prediction_log_recorded_total", "Predictions on local disk")
log_stored = Counter("prediction_log_stored_total", "Predictions brought to PostgreSQL")
log_dropped = Counter(
    "prediction_log_dropped_total", "Predictions that were dropped because the spool was full"
)
log_rejected = Counter(
    "prediction_log_rejected_total", "Lines that PostgreSQL refused or nobody could read"
)
log_spool_bytes = Gauge(
    "prediction_log_spool_bytes",
    "What waits on local disk for PostgreSQL",
    multiprocess_mode="mostrecent",
)
log_max_bytes = Gauge(
    "prediction_log_max_bytes", "What may wait at most", multiprocess_mode="mostrecent"
)
log_spool_age = Gauge(
    "prediction_log_spool_age_seconds",
    "Age of the oldest segment of the spool; about a second while PostgreSQL takes predictions",
    multiprocess_mode="mostrecent",
)


def total(name: str) -> float:
    """The sum of counter `name` over every process that shares this service's metrics."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry.get_sample_value(name) or 0.0
