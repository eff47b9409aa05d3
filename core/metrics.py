"""Every Prometheus metric of the service, and the totals of counters over all processes.

The start sets PROMETHEUS_MULTIPROC_DIR for its workers, so the metrics cover all workers and appear
in BentoML's own /metrics. Label values come from closed sets, never from a request.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, values

from core.errors import MetricsGone
from core.metrics_files import read_families
from core.metrics_map import UNOPENED, ReservedMmapedDict, UnopenedDict

_named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
# The folder of the metrics of all processes; None in a process that keeps its own in memory. An
# operator's shell may name a folder that is not there, for another program.
FOLDER = Path(_named) if _named and Path(_named).is_dir() else None
# Asking the kernel for it at every increment took 8 % of a cached request.
_process_id = os.getpid()
if FOLDER is None and _named != UNOPENED:
    values.ValueClass = values.MutexValue
else:
    values.MmapedDict = UnopenedDict if FOLDER is None else ReservedMmapedDict  # type: ignore[attr-defined,assignment]
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _process_id)  # type: ignore[no-untyped-call]


def open_files(folder: Path) -> None:
    """Count from now on in files of this process, which was forked from one with `UNOPENED`.

    Every value is moved there when one of them is used next, because the process is another one.
    """
    global FOLDER, _process_id
    FOLDER, _process_id = folder, os.getpid()
    values.MmapedDict = ReservedMmapedDict  # type: ignore[attr-defined]


CONFIDENCE_BUCKETS = (0.34, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
TOKEN_BUCKETS = (16, 32, 64, 128, 192, 256, 384, 512, 1_024, 2_048, 4_096, 8_192)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LATENCY_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
Duration = partial(Histogram, buckets=LATENCY_BUCKETS_SECONDS)
# Of several processes, the one that set the gauge last counts.
Latest = partial(Gauge, multiprocess_mode="mostrecent")

http_requests = Counter(
    "http_requests_total", "HTTP requests by route template", ["endpoint", "status"]
)
http_request_duration = Duration(
    "http_request_duration_seconds",
    "Time from the first byte of the request to the last of the reply",
    ["endpoint"],
)
timed_out_requests = Counter(
    "timed_out_requests_total",
    "Requests answered 504 because of their deadline, or 408 because their headers or body did "
    "not arrive",
    ["reason"],
)
predictions = Counter("model_predictions_total", "Predictions answered", ["sentiment", "version"])
inference_duration = Duration(
    "model_inference_duration_seconds", "Duration of one batch in the engine", ["version"]
)
batch_texts = Histogram(
    "model_batch_texts", "Texts in one batch of a runner", ["version"], buckets=BATCH_BUCKETS
)
batch_tokens = Histogram(
    "model_batch_tokens",
    "Padded tokens of one batch of a runner: rows times the longest row",
    ["version"],
    buckets=TOKEN_BUCKETS,
)
tokens = Counter(
    "model_tokens_total",
    "Tokens that the engine computed; padding fills rows up to the longest of their batch",
    ["version", "kind"],
)
capacity = Latest(
    "model_capacity_tokens_per_second",
    "Padded tokens a second that the runner computed of full batches when it got its model",
    ["version"],
)
queued_texts = Latest("model_queued_texts", "Texts that wait in a runner", ["version"])
queue_wait = Duration(
    "model_queue_wait_seconds",
    "From a text's arrival at its runner to the start of its batch",
    ["version"],
)
abandoned_texts = Counter(
    "model_abandoned_texts_total",
    "Texts not computed because their client had left or their deadline had passed",
    ["version"],
)
shed_requests = Counter(
    "shed_requests_total", "Requests answered 503 because of overload", ["reason"]
)
runner_calls = Counter("runner_calls_total", "Calls of an API worker to a runner", ["version"])
runner_up = Latest(
    "runner_up", "Whether the runner answered the last probe of an API worker", ["version"]
)
runner_hosts = Latest(
    "runner_hosts", "Runner hosts that answered the last probe of an API worker", ["version"]
)
runner_failovers = Counter(
    "runner_failovers_total", "Calls that another host of the runner took over", ["version"]
)
revision_info = Latest(
    "model_revision_info",
    "1 for the model that a version's runner holds, 0 for the models that it held before",
    ["version", "revision", "engine"],
)
model_changes = Counter(
    "model_changes_total",
    "Changes of the desired model of a running runner, by outcome: done or refused",
    ["version", "outcome"],
)
model_refused = Latest(
    "model_change_refused", "1 while a runner does not hold its last desired model", ["version"]
)
rollout_policy_version = Latest(
    "rollout_policy_version",
    "The active rollout policy of the API process that refreshed last; 0: the settings",
)
rollout_policy_frozen = Latest(
    "rollout_policy_frozen",
    "1 while PostgreSQL does not answer, so that the last known rollout policy stays active",
)
rollout_changes = Counter(
    "rollout_changes_total", "Rollout policies that became active", ["action"]
)
rollout_share = Latest(
    "rollout_share_percent", "Share of the subjects of /predict/ab, by version", ["version"]
)
shadow_texts = Counter(
    "shadow_texts_total",
    "Texts of /predict sampled for the shadow: compared, failed, or skipped for lack of time",
    ["outcome"],
)
build_info = Latest(
    "sentiment_build_info",
    "Always 1; the labels name the running versions",
    ["version", "python", "bentoml"],
)
comparisons = Counter(
    "model_comparisons_total", "Texts that both versions classified", ["agreement"]
)
# NaN while there are too few predictions; no alert fires on NaN.
drift_psi = Latest(
    "model_drift_psi",
    "Population Stability Index of the last hour against the week before it; of the content, its "
    "like for normal features, the squared Mahalanobis distance",
    ["version", "feature"],
)
drift_psi_noise = Latest(
    "model_drift_psi_noise",
    "The PSI that samples of these sizes exceed in 1 % of comparisons without any drift",
    ["version", "feature"],
)
confidence = Histogram(
    "model_confidence", "Confidence of predictions", ["version"], buckets=CONFIDENCE_BUCKETS
)
cache_hits = Counter("cache_hits_total", "Texts answered from the cache")
cache_misses = Counter("cache_misses_total", "Texts that were not in the cache")
cache_joins = Counter(
    "cache_single_flight_joins_total", "Misses that waited for the same text in flight"
)
cache_writes_dropped = Counter(
    "cache_writes_dropped_total", "Answers not cached because too many waited for Redis"
)
cache_invalid_values = Counter(
    "cache_invalid_values_total",
    "Values in Redis that are no cached answer; each is a miss and is deleted",
)
idempotent_requests = Counter(
    "idempotent_requests_total", "Requests with an Idempotency-Key", ["result"]
)
redis_errors = Counter("redis_errors_total", "Failed Redis operations", ["operation"])
rate_limited = Counter("rate_limited_requests_total", "Requests answered 429", ["limit"])
db_queries = Counter("db_queries_total", "Database round trips", ["type"])
db_query_duration = Duration(
    "db_query_duration_seconds", "Duration of one database round trip", ["type"]
)
background_failures = Counter(
    "background_failures_total",
    "Failures of background tasks and threads; each is started again",
    ["task"],
)
log_recorded = Counter(
    "prediction_log_recorded_total", "Predictions written to the spool on local disk"
)
log_stored = Counter(
    "prediction_log_stored_total", "Predictions shipped to PostgreSQL, each counted once"
)
log_repeated = Counter(
    "prediction_log_repeated_total",
    "Predictions shipped that PostgreSQL had: of shadow traffic, of repeated requests, of a kill",
)
log_dropped = Counter(
    "prediction_log_dropped_total", "Predictions that were dropped because the spool was full"
)
log_rejected = Counter(
    "prediction_log_rejected_total",
    "Spool lines set aside in rejected.jsonl: PostgreSQL refused them or they could not be read",
)
log_rejected_bytes = Latest(
    "prediction_log_rejected_bytes",
    "Size of rejected.jsonl, which counts in the largest size of the spool",
)
log_spool_bytes = Latest(
    "prediction_log_spool_bytes", "Size of the spool that waits for PostgreSQL"
)
log_max_bytes = Latest("prediction_log_max_bytes", "Largest allowed size of the spool")
log_spool_age = Latest(
    "prediction_log_spool_age_seconds",
    "Age of the oldest segment of the spool; about a second while PostgreSQL answers",
)
log_overdue = Latest(
    "prediction_log_overdue_predictions",
    "Predictions in a spool whose oldest has waited for PostgreSQL for more than 10 s, else 0; the "
    "label is the name that the folder keeps, wherever its volume goes",
    ["spool"],
)
sink_delivered = Counter(
    "prediction_log_sink_delivered_total", "Predictions that a sink has taken", ["sink"]
)
sink_lost = Counter(
    "prediction_log_sink_lost_total",
    "Stored predictions that a sink never gets: too many waited for it, or it refused them",
    ["sink"],
)
sink_gone = Counter(
    "prediction_log_sink_gone_total",
    "Predictions that a sink did not get because they were erased, or expired, before their turn",
    ["sink"],
)
sink_failures = Counter(
    "prediction_log_sink_failures_total",
    "Deliveries that failed and were tried again: the sink was unavailable, or refused them",
    ["sink", "reason"],
)
sink_waiting = Latest(
    "prediction_log_sink_waiting_predictions", "Stored predictions that wait for a sink", ["sink"]
)
sink_overdue = Latest(
    "prediction_log_sink_overdue_seconds",
    "Time since a sink should have taken the oldest prediction that waits for it",
    ["sink"],
)


def start_at_zero(metric: Counter | Histogram, *values: Iterable[str]) -> None:
    """Make the series of each combination of label values, before anything is counted in it.

    A series that begins with its first count shows no increase: an alert would miss that one. A
    division by a series that is missing has no result, and an empty panel looks like a broken one.
    """
    for combination in product(*values):
        metric.labels(*combination)


def families() -> list[Metric]:
    """Every metric, over all processes of this service.

    Raises:
        MetricsGone: somebody removed their files.
    """
    return list(REGISTRY.collect()) if FOLDER is None else _read(FOLDER)


def _read(folder: Path, types: frozenset[str] | None = None) -> list[Metric]:
    if not folder.is_dir():
        # An empty reply would look like a service that is idle.
        raise MetricsGone(f"the folder of the metrics, {folder.name}, is gone: restart the service")
    return read_families(folder, types)


def by_label(label: str, *names: str) -> list[dict[str, float]]:
    """Read counters and gauges of one label by its values, over all processes of this service."""
    if FOLDER is None:
        families = REGISTRY.collect()
    else:
        families = _read(FOLDER, frozenset({"counter", "gauge"}))
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for family in families:
        for sample in family.samples:
            if sample.name in found:
                found[sample.name][sample.labels[label]] = sample.value
    return list(found.values())


def totals(*names: str) -> list[float]:
    """Read counters and gauges without labels, over all processes of this service."""
    if FOLDER is None:
        return [REGISTRY.get_sample_value(name) or 0.0 for name in names]
    samples = {
        sample.name: sample.value
        for family in _read(FOLDER, frozenset({"counter", "gauge"}))
        for sample in family.samples
        if not sample.labels
    }
    return [samples.get(name, 0.0) for name in names]
