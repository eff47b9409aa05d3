"""What becomes of the prediction log."""

from __future__ import annotations

from monitoring.dashboards.panels import RATE, Page, Panel, Query, percentiles, rate

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
