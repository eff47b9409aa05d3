"""The one table of the service's routes: scope, limit, traces and audit of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from core.api_keys import KeyScope
from core.rate_limits import LimitName


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
    # A body of another type, or without a type, is refused (415). A page of another website may
    # send a body without a type, but needs the consent of the service for one of JSON.
    media_types: tuple[str, ...] = ("application/json",)
    success_status: int = 200
    # Statuses of errors beside those that every route of its kind has.
    problems: tuple[int, ...] = ()

    @property
    def queries_database(self) -> bool:
        return self.method == "GET" and (
            self.limit == "analytics" or self.path.startswith("/admin/rollout")
        )


ROUTES = (
    Route("POST", "/predict", "predict", "predict", predicts=True, traced=True),
    Route("POST", "/predict/batch", "predict", "batch", predicts=True, traced=True),
    Route("POST", "/predict/ab", "predict", "predict", predicts=True, traced=True),
    Route("POST", "/predict/ab-compare", "predict", "predict", predicts=True, traced=True),
    Route(
        "POST", "/feedback", "predict", "predict", traced=True, success_status=202, problems=(404,)
    ),
    *(
        Route("POST", path, "admin", "admin", traced=True, audited=True, problems=(404, 409))
        for path in ("/admin/rollout", "/admin/models/reload")
    ),
    Route("GET", "/admin/rollout", "admin", "admin", traced=True),
    Route("GET", "/admin/rollout/history", "admin", "admin"),
    Route("GET", "/admin/keys", "admin", "admin"),
    *(
        Route("GET", f"/analytics/{name}", "analytics", "analytics", traced=True)
        for name in (
            *("summary", "sentiment-distribution", "recent", "timeseries", "latency"),
            *("confidence", "drift", "ab", "ab/over-time"),
        )
    ),
    *(Route("GET", path, "analytics") for path in ("/cache/stats", "/log/stats", "/metrics")),
    Route("GET", "/rate-limit/status", "predict"),
    *(
        Route("GET", path, None)
        for path in (
            # The files of the last are those of /docs.
            *("/", "/dashboard", "/dashboard/", "/docs", "/docs/", "/static_content/"),
            *("/health", "/healthz", "/livez", "/openapi.json", "/readyz"),
        )
    ),
)
# A path that is not in the table is for admins alone, whichever code serves it.
UNKNOWN = Route("GET", "other", "admin")
# The 503 of this route carries a report of what is down, not a problem.
REPORT_PATH = "/health"
# Probes ask every second, and expect a 503 while the service is not ready.
PROBE_PATHS = frozenset({"/health", "/healthz", "/livez", "/readyz"})
DASHBOARD_FILES = "/dashboard/"

POST_PATHS = frozenset(route.path for route in ROUTES if route.method == "POST")
PREDICT_PATHS = frozenset(route.path for route in ROUTES if route.predicts)

_FOLDERS = tuple(route.path for route in ROUTES if route.path.endswith("/") and route.path != "/")
# By whether the method is POST. A method that a path lacks counts against no limit.
_ROUTES = {(route.method != "POST", route.path): replace(route, limit=None) for route in ROUTES}
_ROUTES |= {(route.method == "POST", route.path): route for route in ROUTES}


def route_of(method: str, path: str) -> Route:
    """The route of a request, or `UNKNOWN`; its path is a metric label of a closed set.

    For a method that a path does not have, it is the route of another method, without its limit.
    """
    is_post = method == "POST"
    route = _ROUTES.get((is_post, path))
    if route is None:
        folder = next((folder for folder in _FOLDERS if path.startswith(folder)), None)
        return _ROUTES[is_post, folder] if folder else UNKNOWN
    return route


def listed_route(method: str, path: str) -> Route:
    """The row of the table for an endpoint that the service has.

    Raises:
        LookupError: the table does not list the endpoint.
    """
    route = route_of(method, path)
    if (route.method, route.path) != (method, path):
        raise LookupError(f"web/routes.py does not list {method} {path}")
    return route


def allowed_methods(path: str) -> str | None:
    """The `Allow` header of a path, or None for one that is not in the table."""
    return _ALLOWED.get(path)


def _allowed(path: str) -> str:
    methods = {route.method for route in ROUTES if route.path == path}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


_ALLOWED = {route.path: _allowed(route.path) for route in ROUTES}
