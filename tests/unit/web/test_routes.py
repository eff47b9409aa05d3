"""Metric labels and rate limits follow the routes, never the request's own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import PREDICT_ENDPOINTS
from web.routes import (
    ADMIN_ROUTES,
    ANALYTICS_ROUTES,
    POST_ROUTES,
    UNLIMITED_ROUTES,
    endpoint_label,
    limit_name,
    needed_scope,
)

KNOWN = {*POST_ROUTES, *ANALYTICS_ROUTES, *ADMIN_ROUTES, *UNLIMITED_ROUTES}


@given(st.text() | st.sampled_from(sorted(KNOWN)).flatmap(lambda path: st.just(path + "/")))
def test_any_path_has_a_label_of_a_closed_set(path: str) -> None:
    templates = {path, "/dashboard/"} if path.startswith("/dashboard/") else {path} & KNOWN
    assert endpoint_label(path) in (templates & {*KNOWN, "/dashboard/"} or {"other"})


def test_the_files_of_the_dashboard_share_a_label_and_are_open() -> None:
    paths = ["/dashboard/main.js", "/dashboard/panels/ab.js", "/dashboard/x" * 99, "/dashboard/"]
    assert {endpoint_label(path) for path in paths} == {"/dashboard/"}
    assert {needed_scope(path) for path in [*paths, "/dashboard"]} == {None}
    assert needed_scope("/dashboards") == "admin"


def test_every_predicting_endpoint_is_known_and_limited() -> None:
    assert set(PREDICT_ENDPOINTS) - {"shadow"} < POST_ROUTES.keys()


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
        ("POST", "/admin/rollout", None),
        ("GET", "/admin/rollout/history", None),
        ("GET", "/health", None),
        ("GET", "/metrics", None),
        ("POST", "/no/such/path", None),
    ],
)
def test_limits_follow_route_and_method(method: str, path: str, limit: str | None) -> None:
    assert limit_name(method, path) == limit
