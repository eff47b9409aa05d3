"""The routes of the service by template, and the rate limit that each falls under."""

from __future__ import annotations

from typing import Literal

from core.api_keys import KeyScope

LimitName = Literal["predict", "batch", "analytics"]

# The JSON APIs that @bentoml.api serves.
POST_ROUTES: dict[str, LimitName | None] = {
    "/predict": "predict",
    "/predict/batch": "batch",
    "/predict/ab": "predict",
    "/predict/ab-compare": "predict",
    "/feedback": "predict",
    "/admin/rollout": None,
    "/admin/models/reload": None,
}
ADMIN_ROUTES = frozenset({"/admin/rollout", "/admin/rollout/history", "/admin/models/reload"})
# What BentoML, which knows of the POST alone, would tell wrongly.
ALLOWED_METHODS = {"/admin/rollout": "GET, POST"}
# Those that ask a model.
PREDICT_ROUTES = frozenset(POST_ROUTES) - ADMIN_ROUTES - {"/feedback"}
ANALYTICS_ROUTES: dict[str, LimitName] = {
    "/analytics/summary": "analytics",
    "/analytics/sentiment-distribution": "analytics",
    "/analytics/recent": "analytics",
    "/analytics/timeseries": "analytics",
    "/analytics/latency": "analytics",
    "/analytics/confidence": "analytics",
    "/analytics/drift": "analytics",
    "/analytics/ab": "analytics",
    "/analytics/ab/over-time": "analytics",
}
UNLIMITED_ROUTES = frozenset(
    {
        "/",
        "/cache/stats",
        "/dashboard",
        "/docs",
        "/health",
        "/healthz",
        "/livez",
        "/log/stats",
        "/metrics",
        "/openapi.json",
        "/rate-limit/status",
        "/readyz",
    }
)
# Its 503 carries a report of what is down, not a problem.
REPORT_ROUTE = "/health"

# What the page of /docs is made of.
_STATIC = "/static_content/"
# What the dashboard is made of; what it shows, it asks for.
DASHBOARD_FILES = "/dashboard/"
# What anybody may ask, with keys and without: whether it is up, and how to talk to it.
OPEN_ROUTES = frozenset(
    {"/", "/dashboard", "/docs", "/health", "/healthz", "/livez", "/openapi.json", "/readyz"}
)

_KNOWN = frozenset({*POST_ROUTES, *ANALYTICS_ROUTES, *ADMIN_ROUTES, *UNLIMITED_ROUTES})


def endpoint_label(path: str) -> str:
    """The metric label of a request path: its template, or `other`; a closed set."""
    if path.startswith(DASHBOARD_FILES):
        return DASHBOARD_FILES
    return path if path in _KNOWN else "other"


def traced_route(path: str) -> str | None:
    """The template of what is worth a trace; None for probes, metrics and what is not here."""
    return path if path in POST_ROUTES or path in ANALYTICS_ROUTES else None


def needed_scope(path: str) -> KeyScope | None:
    """What a key must be for to ask this; None if no key is needed.

    What is not known here is for nobody but admins, whoever serves it.
    """
    if path in OPEN_ROUTES or path.startswith((_STATIC, DASHBOARD_FILES)):
        return None
    if path in ADMIN_ROUTES:
        return "admin"
    if path in POST_ROUTES or path == "/rate-limit/status":
        return "predict"
    if path in ANALYTICS_ROUTES or path in ("/cache/stats", "/log/stats", "/metrics"):
        return "analytics"
    return "admin"


def limit_name(method: str, path: str) -> LimitName | None:
    """The limit that a request counts against, if any."""
    if method == "POST":
        return POST_ROUTES.get(path)
    return ANALYTICS_ROUTES.get(path)
