"""The one table of the service's routes: scope, limit, traces and audit of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.api_keys import KeyScope

LimitName = Literal["predict", "batch", "analytics"]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `scope` is the scope that an API key needs; None: the route is open to everybody, with keys and
    without. `limit` is the rate limit that a request counts against. `predicts`: the route asks a
    model, so load shedding covers it. `traced`: a request is worth a trace. `audited`: the log
    names its caller. A path that ends in `/` stands for every file below it.
    """

    method: Literal["GET", "POST"]
    path: str
    scope: KeyScope | None
    limit: LimitName | None = None
    predicts: bool = False
    traced: bool = False
    audited: bool = False
    success_status: int = 200
    # Errors beside those that every route of its kind has.
    further_problems: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.scope is None

    @property
    def queries_database(self) -> bool:
        return self.method == "GET" and (self.limit == "analytics" or self.scope == "admin")


ROUTES = (
    Route("POST", "/predict", "predict", limit="predict", predicts=True, traced=True),
    Route("POST", "/predict/batch", "predict", limit="batch", predicts=True, traced=True),
    Route("POST", "/predict/ab", "predict", limit="predict", predicts=True, traced=True),
    Route("POST", "/predict/ab-compare", "predict", limit="predict", predicts=True, traced=True),
    Route(
        "POST",
        "/feedback",
        "predict",
        limit="predict",
        traced=True,
        success_status=202,
        further_problems=(404,),
    ),
    Route(
        "POST", "/admin/rollout", "admin", traced=True, audited=True, further_problems=(404, 409)
    ),
    Route("GET", "/admin/rollout", "admin"),
    Route("GET", "/admin/rollout/history", "admin"),
    Route(
        "POST",
        "/admin/models/reload",
        "admin",
        traced=True,
        audited=True,
        further_problems=(404, 409),
    ),
    Route("GET", "/analytics/summary", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/sentiment-distribution", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/recent", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/timeseries", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/latency", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/confidence", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/drift", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/ab", "analytics", limit="analytics", traced=True),
    Route("GET", "/analytics/ab/over-time", "analytics", limit="analytics", traced=True),
    Route("GET", "/cache/stats", "analytics"),
    Route("GET", "/log/stats", "analytics"),
    Route("GET", "/metrics", "analytics"),
    Route("GET", "/rate-limit/status", "predict"),
    Route("GET", "/", None),
    Route("GET", "/dashboard", None),
    Route("GET", "/dashboard/", None),
    Route("GET", "/docs", None),
    Route("GET", "/static_content/", None),  # of the page at /docs
    Route("GET", "/health", None),
    Route("GET", "/healthz", None),
    Route("GET", "/livez", None),
    Route("GET", "/openapi.json", None),
    Route("GET", "/readyz", None),
)
# The 503 of this route carries a report of what is down, not a problem.
REPORT_PATH = "/health"
# Probes ask every second, and expect a 503 while the service is not ready.
PROBE_PATHS = frozenset({"/health", "/healthz", "/livez", "/readyz"})
DASHBOARD_FILES = "/dashboard/"

POST_PATHS = frozenset(route.path for route in ROUTES if route.method == "POST")
PREDICT_PATHS = frozenset(route.path for route in ROUTES if route.predicts)

_FOLDERS = tuple(r.path for r in ROUTES if r.path.endswith("/") and r.path != "/")
_BY_PATH: dict[str, tuple[Route, ...]] = {
    path: tuple(route for route in ROUTES if route.path == path)
    for path in {route.path for route in ROUTES}
}


def routes_at(path: str) -> tuple[Route, ...]:
    """The routes of a request's path, one for each method; none for an unknown path."""
    found = _BY_PATH.get(path)
    if found is not None:
        return found
    folder = next((folder for folder in _FOLDERS if path.startswith(folder)), None)
    return _BY_PATH[folder] if folder else ()


def route_of(method: str, path: str) -> Route | None:
    """The route of a request; for a method that a path does not have, one of its others."""
    routes = routes_at(path)
    for route in routes:
        if (route.method == "POST") == (method == "POST"):
            return route
    return routes[0] if routes else None


def listed_route(method: str, path: str) -> Route:
    """The row of the table for an endpoint that the service has.

    Raises:
        LookupError: the table does not list the endpoint.
    """
    for route in routes_at(path):
        if route.method == method:
            return route
    raise LookupError(f"web/routes.py does not list {method} {path}")


def endpoint_label(path: str) -> str:
    """The metric label of a request's path: its template, or `other`; a closed set."""
    routes = routes_at(path)
    return routes[0].path if routes else "other"


def traced_path(path: str) -> str | None:
    """The template of a path that is worth a trace; None for probes, metrics, unknown paths."""
    routes = routes_at(path)
    return routes[0].path if any(route.traced for route in routes) else None


def needed_scope(path: str) -> KeyScope | None:
    """The scope that a key needs for a path; None if the path is open.

    An unknown path is for admins alone, whichever code serves it.
    """
    routes = routes_at(path)
    return routes[0].scope if routes else "admin"


def limit_name(method: str, path: str) -> LimitName | None:
    """The limit that a request counts against, if any."""
    route = route_of(method, path)
    return route.limit if route and (route.method == "POST") == (method == "POST") else None


def allowed_methods(path: str) -> str | None:
    """The `Allow` header of a path with a POST; the GETs' own framework knows the others."""
    routes = routes_at(path)
    if path not in POST_PATHS:
        return None
    return ", ".join(sorted(route.method for route in routes))
