"""The series of an API process's metrics, at 0 before its first request."""

from __future__ import annotations

from typing import get_args

from core import metrics
from core.metrics import start_at_zero
from core.postgres import QueryType
from core.rate_limits import LIMIT_NAMES
from core.redis import Operation
from core.types import SENTIMENTS, SINK_NAMES, VERSIONS
from rollout.changes import Action
from runners.admission import Reason
from runners.first_series import BACKGROUND_TASKS as RUNNER_TASKS
from web.idempotency import Result
from web.routes import PREDICT_LABELS, ROUTES, UNKNOWN

# The tasks and threads of all processes, as they name themselves; a test compares.
BACKGROUND_TASKS = (
    *RUNNER_TASKS,
    "CacheSecret",
    "CacheWriter",
    "ContentSampler",
    "DriftWatch",
    "FailuresWriter",
    "HashConversion",
    "Heartbeat",
    "JobRunner",
    "JobSweep",
    "KeyRing",
    "KeyUse",
    "LivePolicy",
    "OutboxCleaner",
    "PartitionMaintenance",
    "PredictionLog",
    "RolloutController",
    "RunnerClient",
    "Shadow",
    "Shipper",
    "ShipperProcess",
    "ShipperSupervisor",
    "SinkDelivery",
    "SinkWatch",
    "Spool",
    "SpoolDestination",
    "SpoolGauges",
)
# The failures that count against the objectives, and the refusals.
PREDICT_STATUSES = ("429", "500", "503", "504")
# Of a path that is no route, of what is no request, and of the prefix without its slash.
UNKNOWN_STATUSES = ("308", "400", "404", "405", "408", "431", "501", "505")


def start_api_series() -> None:
    """Make every series that this process, and the log shipper, may count in."""
    for route in ROUTES:
        start_at_zero(metrics.http_requests, [route.path], [str(route.success_status)])
    start_at_zero(metrics.http_requests, PREDICT_LABELS, PREDICT_STATUSES)
    start_at_zero(metrics.http_requests, [UNKNOWN.path], UNKNOWN_STATUSES)
    start_at_zero(metrics.http_request_duration, PREDICT_LABELS)
    start_at_zero(metrics.timed_out_requests, ["deadline", "client_deadline", "body", "headers"])
    start_at_zero(metrics.shed_requests, [*get_args(Reason), "throttle", "event_loop"])
    start_at_zero(metrics.rate_limited, LIMIT_NAMES)
    start_at_zero(metrics.predictions, SENTIMENTS, VERSIONS)
    for metric in (
        metrics.abandoned_texts,
        metrics.confidence,
        metrics.runner_calls,
        metrics.runner_failovers,
    ):
        start_at_zero(metric, VERSIONS)
    start_at_zero(metrics.comparisons, ["agree", "disagree"])
    start_at_zero(metrics.shadow_texts, ["compared", "failed", "skipped"])
    start_at_zero(metrics.rollout_changes, get_args(Action))
    start_at_zero(metrics.idempotent_requests, get_args(Result))
    start_at_zero(metrics.redis_errors, get_args(Operation))
    start_at_zero(metrics.db_queries, get_args(QueryType))
    start_at_zero(metrics.db_query_duration, get_args(QueryType))
    for metric in (metrics.sink_delivered, metrics.sink_gone, metrics.sink_lost):
        start_at_zero(metric, SINK_NAMES)
    # Of a gauge that no process has set, nothing is shown.
    for sink in SINK_NAMES:
        metrics.sink_overdue.labels(sink).set(0)
        metrics.sink_waiting.labels(sink).set(0)
    start_at_zero(metrics.sink_failures, SINK_NAMES, ["refused", "unavailable"])
    start_at_zero(metrics.background_failures, BACKGROUND_TASKS)
