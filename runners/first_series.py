"""The series of a runner's metrics, at 0 before its first batch."""

from __future__ import annotations

from core import metrics
from core.metrics import start_at_zero
from core.types import Version

# The background tasks of a runner's process, as they name themselves.
BACKGROUND_TASKS = ("EngineChoice", "ModelChange", "ModelRetry")


def start_runner_series(version: Version) -> None:
    """Make every series that the runner of this version counts in."""
    for metric in (
        metrics.abandoned_texts,
        metrics.batch_texts,
        metrics.batch_tokens,
        metrics.inference_duration,
        metrics.queue_wait,
    ):
        start_at_zero(metric, [version])
    start_at_zero(metrics.tokens, [version], ["text", "padding"])
    start_at_zero(metrics.model_changes, [version], ["done", "refused"])
    start_at_zero(metrics.background_failures, BACKGROUND_TASKS)
    metrics.queued_texts.labels(version).set(0)
