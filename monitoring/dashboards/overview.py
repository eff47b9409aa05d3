"""Whether it answers, and how long that takes."""

from __future__ import annotations

from monitoring.dashboards.panels import PREDICT, Page, Panel, Query, percentile, percentiles, rate

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
