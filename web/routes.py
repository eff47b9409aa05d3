"""The one table of the service's routes: scope, limit, traces and audit of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from core.api_keys import KeyScope
from core.rate_limits import LimitName
from core.types import VERSIONS

# The values of a parameter in a path: each set is closed, so a template is a metric label.
PATH_PARAMETERS: dict[str, tuple[str, ...]] = {"model": VERSIONS, "model_version": ("1",)}


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path, which may have `PATH_PARAMETERS`.

    `scope` is the scope that an API key needs; None: the route is open to everybody, with keys and
    without. `limit` is the rate limit that a request counts against. `predicts`: the route asks a
    model, so load shedding covers it. `traced`: a request is worth a trace. `audited`: the log
    names its caller. A path that ends in `/` stands for every file below it.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    scope: KeyScope | None
    limit: LimitName | None = None
    predicts: bool = False
    traced: bool = False
    audited: bool = False
    # A body of another type is refused (415), and one without a type unless "" is listed. A page of
    # another website may send a body without a type, but needs the consent of the service for one
    # of JSON.
    media_types: tuple[str, ...] = ("application/json",)
    success_status: int = 200
    # Statuses of errors beside those that every route of its kind has.
    problems: tuple[int, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that the template stands for."""
        paths = [self.path]
        for name, values in PATH_PARAMETERS.items():
            if f"{{{name}}}" in self.path:
                paths = [path.replace(f"{{{name}}}", value) for path in paths for value in values]
        return tuple(paths)

    @property
    def is_repeatable(self) -> bool:
        """Whether an Idempotency-Key makes a repeat of a request harmless."""
        scopes = ("predict", "feedback")
        return self.method == "POST" and self.scope in scopes and self.path != JOBS_PATH

    @property
    def queries_database(self) -> bool:
        return self.method == "GET" and (
            self.limit == "analytics" or self.path.startswith("/admin/rollout")
        )


JOBS_PATH = "/jobs"
_JOB = "/jobs/{job}"
_JOB_FILES = ("result", "rejected")
_JOB_TEMPLATE = re.compile(r"/jobs/[^/]+(?P<file>/result|/rejected)?")
_MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{model_version}")

ROUTES = (
    Route("POST", "/predict", "predict", "predict", predicts=True, traced=True),
    Route("POST", "/predict/batch", "predict", "batch", predicts=True, traced=True),
    Route("POST", "/predict/ab", "predict", "predict", predicts=True, traced=True),
    Route("POST", "/predict/ab-compare", "predict", "predict", predicts=True, traced=True),
    # tritonclient sends its bodies without a type, or as bytes.
    *(
        Route(
            *("POST", f"{path}/infer", "predict", "batch"),
            predicts=True,
            traced=True,
            media_types=("application/json", "application/octet-stream", ""),
            problems=(404,),
        )
        for path in _MODEL_PATHS
    ),
    *(
        Route("POST", path, "predict", "batch", predicts=True, traced=True)
        for path in ("/tei", "/tei/predict")
    ),
    Route(
        *("POST", "/invocations", "predict", "batch"),
        predicts=True,
        traced=True,
        media_types=("application/json", "text/csv", "application/jsonlines"),
    ),
    Route(
        "POST", "/feedback", "feedback", "predict", traced=True, success_status=202, problems=(404,)
    ),
    Route(
        *("POST", JOBS_PATH, "predict", "predict"),
        traced=True,
        success_status=201,
        problems=(400, 408, 413, 415, 507),
    ),
    Route("DELETE", _JOB, "predict", "predict", success_status=204, problems=(404,)),
    Route("GET", JOBS_PATH, "predict", "predict", traced=True),
    Route("GET", _JOB, "predict", "predict", problems=(404,)),
    *(
        Route("GET", f"{_JOB}/{name}", "predict", "predict", problems=(404, 409, 416))
        for name in _JOB_FILES
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
            *("confidence", "drift", "ab", "ab/over-time", "review-queue"),
        )
    ),
    *(Route("GET", path, "analytics") for path in ("/cache/stats", "/log/stats", "/metrics")),
    *(Route("GET", path, "predict") for path in ("/models", "/rate-limit/status", "/v2")),
    *(
        Route("GET", f"{path}{rest}", "predict", problems=(404,))
        for path in _MODEL_PATHS
        for rest in ("", "/ready")
    ),
    *(
        Route("GET", path, None)
        for path in (
            # The files of the last are those of /docs.
            *(
                "/",
                "/dashboard",
                "/dashboard/",
                "/docs",
                "/docs/",
                "/static_content/",
            ),
            *("/health", "/healthz", "/livez", "/openapi.json", "/ping", "/readyz"),
            *("/v2/health/live", "/v2/health/ready"),
        )
    ),
)
# A path that is not in the table is for admins alone, whichever code serves it.
UNKNOWN = Route("GET", "other", "admin")
# A client may ask for a model that is not there; the answer is no secret of admins.
UNKNOWN_MODEL = Route("GET", UNKNOWN.path, "predict")
MODELS_FOLDER = "/v2/models/"
# The clients of these protocols read the reason of an error from its member `error`.
ERROR_TEXT_PREFIXES = ("/v2", "/tei")
# KServe's client reads it only where the Content-Type is application/json (docs/decisions/0065).
JSON_ERROR_PREFIX = "/v2"
# The 503 of this route carries a report of what is down, not a problem.
REPORT_PATH = "/health"
# Probes ask every second, and expect a 503 while the service is not ready.
PROBE_PATHS = frozenset(
    {"/health", "/healthz", "/livez", "/ping", "/readyz", "/v2/health/live", "/v2/health/ready"}
)
DASHBOARD_FILES = "/dashboard/"

POST_PATHS = frozenset(path for route in ROUTES if route.method == "POST" for path in route.paths)
PREDICT_PATHS = frozenset(path for route in ROUTES if route.predicts for path in route.paths)
PREDICT_LABELS = frozenset(route.path for route in ROUTES if route.predicts)

_FOLDERS = tuple(route.path for route in ROUTES if route.path.endswith("/") and route.path != "/")
# By whether the method is POST. A method that a path lacks counts against no limit.
_ROUTES = {
    (route.method != "POST", path): replace(route, limit=None)
    for route in ROUTES
    for path in route.paths
}
_ROUTES |= {(route.method == "POST", path): route for route in ROUTES for path in route.paths}
_LISTED: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in ROUTES}


def route_of(method: str, path: str) -> Route:
    """The route of a request, or `UNKNOWN`; its path is a metric label of a closed set.

    For a method that a path does not have, it is the route of another method, without its limit.
    """
    is_post = method == "POST"
    route = _ROUTES.get((is_post, _template(path)))
    if route is None:
        folder = next((folder for folder in _FOLDERS if path.startswith(folder)), None)
        if folder is None:
            return UNKNOWN_MODEL if path.startswith(MODELS_FOLDER) else UNKNOWN
        return _ROUTES[is_post, folder]
    return route


def _template(path: str) -> str:
    """The path as the table has it: ids of jobs are no closed set."""
    match = path.startswith("/jobs/") and _JOB_TEMPLATE.fullmatch(path)
    return f"{_JOB}{match['file'] or ''}" if match else path


def listed_route(method: str, path: str) -> Route:
    """The row of the table for an endpoint that the service has, by its template.

    Raises:
        LookupError: the table does not list the endpoint.
    """
    route = _LISTED.get((method, path))
    if route is None:
        raise LookupError(f"web/routes.py does not list {method} {path}")
    return route


def allowed_methods(path: str) -> str | None:
    """The `Allow` header of a path, or None for one that is not in the table."""
    return _ALLOWED.get(_template(path))


def _allowed(path: str) -> str:
    methods = {route.method for route in ROUTES if path in route.paths}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


_ALLOWED = {path: _allowed(path) for route in ROUTES for path in route.paths}
