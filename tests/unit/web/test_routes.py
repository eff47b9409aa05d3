"""One table says what every route is: its label, its scope, its limit, its trace, its audit."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.rate_limits import LIMIT_NAMES
from core.types import PREDICT_ENDPOINTS
from web.routes import (
    POST_PATHS,
    PREDICT_PATHS,
    PROBE_PATHS,
    ROUTES,
    UNKNOWN,
    allowed_methods,
    listed_route,
    route_of,
)

# The paths of the service and what holds for each, written down a second time.
POST_LIMITS = {
    "/predict": "predict",
    "/predict/batch": "batch",
    "/predict/ab": "predict",
    "/predict/ab-compare": "predict",
    "/feedback": "predict",
    "/admin/rollout": "admin",
    "/admin/models/reload": "admin",
    **{
        f"/v2/models/{model}{version}/infer": "batch"
        for model in ("v1", "v2")
        for version in ("", "/versions/1")
    },
    **dict.fromkeys(("/tei", "/tei/predict", "/invocations"), "batch"),
    "/jobs": "predict",
}
JOB_GETS = {"/jobs", "/jobs/{job}", "/jobs/{job}/result", "/jobs/{job}/rejected"}
MODEL_GETS = {
    f"/v2/models/{model}{version}{rest}"
    for model in ("v1", "v2")
    for version in ("", "/versions/1")
    for rest in ("", "/ready")
}
OF_OTHER_PROTOCOLS = {path for path in POST_LIMITS if path.startswith(("/v2", "/tei", "/inv"))}
ADMIN_GETS = {"/admin/rollout", "/admin/rollout/history", "/admin/keys"}
ADMIN = {*ADMIN_GETS, "/admin/models/reload"}
INFER_PATHS = {path for path in POST_LIMITS if path.endswith("/infer")}
OWN_PREDICTING = {"/predict", "/predict/batch", "/predict/ab", "/predict/ab-compare"}
PREDICTING = OWN_PREDICTING | OF_OTHER_PROTOCOLS
ANALYTICS = {
    "/analytics/summary",
    "/analytics/sentiment-distribution",
    "/analytics/recent",
    "/analytics/timeseries",
    "/analytics/latency",
    "/analytics/confidence",
    "/analytics/drift",
    "/analytics/ab",
    "/analytics/ab/over-time",
    "/analytics/review-queue",
}
UNLIMITED = {
    "/",
    "/cache/stats",
    "/dashboard",
    "/docs",
    "/health",
    "/healthz",
    "/livez",
    "/log/stats",
    "/metrics",
    "/models",
    "/openapi.json",
    "/ping",
    "/rate-limit/status",
    "/readyz",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    *MODEL_GETS,
}
PROBES = {
    *("/health", "/healthz", "/livez", "/ping", "/readyz", "/v2/health/live", "/v2/health/ready")
}
OPEN = {"/", "/dashboard", "/docs", "/openapi.json", *PROBES}
FOLDERS = {"/dashboard/", "/docs/", "/static_content/"}
KNOWN = {*POST_LIMITS, *ADMIN, *ANALYTICS, *UNLIMITED, *JOB_GETS}
UNLISTED = [
    "/no/such/path",
    "/jobs/",
    "/jobs//result",
    "/jobs/1/2",
    "/jobs/1/result/",
    "/predict/",
    "/predicts",
    "/dashboards",
    "/static_content",
    "",
    "//",
]


def expected_scope(path: str) -> str | None:
    if path in OPEN:
        return None
    if path in ADMIN:
        return "admin"
    if path == "/feedback":
        return "feedback"
    if path in {*POST_LIMITS, *MODEL_GETS, *JOB_GETS, "/rate-limit/status", "/models", "/v2"}:
        return "predict"
    return "analytics"


def test_table_has_these_paths_and_no_others() -> None:
    assert {path for route in ROUTES for path in route.paths} == KNOWN | FOLDERS
    assert POST_LIMITS.keys() == POST_PATHS
    assert PREDICTING == PREDICT_PATHS


def test_table_lists_each_method_of_a_path_once() -> None:
    counts = Counter((route.method, route.path) for route in ROUTES)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("path", sorted(KNOWN))
def test_known_path_has_its_label_scope_limits_and_trace(path: str) -> None:
    assert route_of("POST", path).limit == POST_LIMITS.get(path)
    for method in ("GET", "HEAD", "OPTIONS"):
        limit = "analytics" if path in ANALYTICS else "admin" if path in ADMIN_GETS else None
        limit = "predict" if path in JOB_GETS else limit
        assert route_of(method, path).limit == limit
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        route = route_of(method, path)
        assert path in route.paths
        assert route.scope == expected_scope(path)
        assert route.traced == (path in POST_LIMITS or path in ANALYTICS)


@pytest.mark.parametrize("path", UNLISTED)
def test_unknown_path_has_no_label_of_its_own_and_is_for_admins(path: str) -> None:
    assert route_of("GET", path) is route_of("POST", path) is UNKNOWN
    assert (UNKNOWN.path, UNKNOWN.scope, UNKNOWN.limit) == ("other", "admin", None)
    assert not UNKNOWN.traced
    assert not UNKNOWN.audited
    assert allowed_methods(path) is None


@given(st.text() | st.sampled_from(sorted(KNOWN)).flatmap(lambda path: st.just(path + "/")))
def test_any_path_has_a_label_of_a_closed_set(path: str) -> None:
    folders = {folder for folder in FOLDERS if path.startswith(folder)}
    label = route_of("GET", path).path
    templates = {route.path for route in ROUTES if path in route.paths}
    if re.fullmatch("/jobs/[^/]+", path):
        templates = {"/jobs/{job}"}
    assert {label} == (folders or templates or {"other"})


def test_files_of_the_dashboard_share_a_label_and_are_open() -> None:
    paths = ["/dashboard/main.js", "/dashboard/panels/ab.js", "/dashboard/x" * 99, "/dashboard/"]
    assert {route_of("GET", path).path for path in paths} == {"/dashboard/"}
    assert {route_of("GET", path).scope for path in [*paths, "/dashboard"]} == {None}
    assert route_of("GET", "/dashboards").scope == "admin"


def test_files_of_the_documentation_are_open() -> None:
    assert route_of("GET", "/static_content/swagger-ui.css").scope is None
    assert route_of("GET", "/static_content").scope == "admin"


@pytest.mark.parametrize("path", sorted(KNOWN))
def test_allowed_methods_have_head_beside_get(path: str) -> None:
    gets = path not in POST_LIMITS or path in {*ADMIN_GETS, *JOB_GETS}
    expected = [*(["GET", "HEAD"] if gets else []), *(["POST"] if path in POST_LIMITS else [])]
    if path == "/jobs/{job}":
        expected = ["DELETE", *expected]
    assert allowed_methods(path) == ", ".join(expected)


def test_every_predicting_endpoint_is_listed_and_limited() -> None:
    assert set(PREDICT_ENDPOINTS) - {"shadow"} < POST_PATHS
    assert set(PREDICT_ENDPOINTS) - {"shadow"} == PREDICT_PATHS - OF_OTHER_PROTOCOLS
    for route in ROUTES:
        assert not route.predicts or (route.limit is not None and route.scope == "predict")


def test_every_limit_is_some_routes() -> None:
    assert {route.limit for route in ROUTES} == {*LIMIT_NAMES, None}


def test_requests_that_change_the_service_are_audited_and_no_others() -> None:
    assert {(route.method, route.path) for route in ROUTES if route.audited} == {
        ("POST", "/admin/rollout"),
        ("POST", "/admin/models/reload"),
    }
    assert all(
        route.audited == (route.scope == "admin") for route in ROUTES if route.method == "POST"
    )


def test_statuses_of_the_post_routes() -> None:
    assert {
        path: (route.success_status, route.problems)
        for route in ROUTES
        if route.method == "POST"
        for path in route.paths
    } == {
        **dict.fromkeys(PREDICTING - {*INFER_PATHS}, (200, ())),
        **dict.fromkeys(INFER_PATHS, (200, (404,))),
        "/feedback": (202, (404,)),
        "/jobs": (201, (400, 408, 413, 415, 507)),
        "/admin/rollout": (200, (404, 409)),
        "/admin/models/reload": (200, (404, 409)),
    }


def test_probes_are_open_gets() -> None:
    assert PROBES == PROBE_PATHS
    assert all(listed_route("GET", path).scope is None for path in PROBE_PATHS)


def test_routes_that_query_the_database_are_those_of_analytics_and_admins() -> None:
    assert {(route.method, route.path) for route in ROUTES if route.queries_database} == {
        *(("GET", path) for path in ANALYTICS),
        ("GET", "/admin/rollout"),
        ("GET", "/admin/rollout/history"),
    }


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/admin/rollout", "GET, HEAD, POST"),
        ("/predict", "POST"),
        ("/admin/rollout/history", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/dashboard/main.js", None),
        ("/v2/models/v1/infer", "POST"),
        ("/v2/models/v2/versions/1", "GET, HEAD"),
        ("/v2/models/v3/infer", None),
        ("/jobs", "GET, HEAD, POST"),
        ("/jobs/0198c7d2-aaaa-7000-8000-000000000000", "DELETE, GET, HEAD"),
        ("/jobs/0198c7d2-aaaa-7000-8000-000000000000/result", "GET, HEAD"),
        ("/jobs/0198c7d2-aaaa-7000-8000-000000000000/input", None),
        ("/v2/models/v1/versions/2/infer", None),
    ],
)
def test_allowed_methods_are_told_of_paths_of_the_table(path: str, methods: str | None) -> None:
    assert allowed_methods(path) == methods


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/admin/rollout", "POST"),
        ("GET", "/admin/rollout", "GET"),
        ("HEAD", "/admin/rollout", "GET"),
        ("GET", "/predict", "POST"),
        ("POST", "/health", "GET"),
    ],
)
def test_route_of_a_request_is_that_of_its_method_if_there_is_one(
    method: str, path: str, found: str
) -> None:
    route = route_of(method, path)
    assert (route.method, route.path) == (found, path)


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/models/v3", "/v2/models/v3/infer", "/v2/models/v1/versions/2", "/v2/models/"),
        *("/v2/models/v1/versions", "/v2/models/V1", "/v2/models/{model}/infer"),
    ],
)
def test_model_that_is_not_there_has_no_label_and_is_no_secret_of_admins(path: str) -> None:
    for method in ("GET", "POST"):
        route = route_of(method, path)
        assert (route.path, route.scope, route.limit) == ("other", "predict", None)


def test_endpoint_that_is_not_listed_is_an_error() -> None:
    assert listed_route("POST", "/predict").path == "/predict"
    for method, path in (("GET", "/predict"), ("POST", "/new")):
        with pytest.raises(LookupError, match=f"does not list {method} {path}"):
            listed_route(method, path)


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/predict", "predict"),
        ("POST", "/predict/ab", "predict"),
        ("POST", "/predict/ab-compare", "predict"),
        ("POST", "/feedback", "predict"),
        ("POST", "/predict/batch", "batch"),
        ("GET", "/analytics/recent", "analytics"),
        ("HEAD", "/analytics/recent", "analytics"),
        ("GET", "/predict", None),
        ("POST", "/analytics/recent", None),
        ("POST", "/admin/rollout", "admin"),
        ("GET", "/admin/rollout/history", "admin"),
        ("GET", "/health", None),
        ("GET", "/metrics", None),
        ("POST", "/no/such/path", None),
    ],
)
def test_limits_follow_route_and_method(method: str, path: str, limit: str | None) -> None:
    assert route_of(method, path).limit == limit
