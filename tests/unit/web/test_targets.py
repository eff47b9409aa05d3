"""Targets of requests: with a prefix or without, with a slash at the end or without."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.routes import ROUTES
from web.targets import LISTED, RequestTargets

PREFIX = "/models/sentiment"
AT_ROOT, BELOW = RequestTargets(), RequestTargets(PREFIX)
# Paths whose slash at the end means something.
WITH_SLASH = {route.path for route in ROUTES if route.path.endswith("/")}
WITHOUT = sorted({path for route in ROUTES for path in route.paths} - WITH_SLASH)
PAGES = {"/docs", "/dashboard"}


@pytest.mark.parametrize("path", WITHOUT)
def test_listed_path_is_found_with_and_without_slash_and_prefix(path: str) -> None:
    for targets, prefixes in ((AT_ROOT, [""]), (BELOW, ["", PREFIX])):
        for prefix in prefixes:
            for query in ("", "?", "?since=1h&until=/2h/", "?next=//evil.example/"):
                asked = f"{prefix}{path}"
                assert targets.inner(f"{asked}{query}".encode()) == f"{path}{query}".encode()
                # The links of a page hold from beside its folder alone: it redirects.
                found = f"{path}/" if path in PAGES else path
                assert targets.inner(f"{asked}/{query}".encode()) == f"{found}{query}".encode()


@pytest.mark.parametrize(
    ("target", "inner"),
    [
        *((path, path) for path in sorted(WITH_SLASH)),
        (f"{PREFIX}/", "/"),
        (f"{PREFIX}/?a=b", "/?a=b"),
        (f"{PREFIX}/dashboard/", "/dashboard/"),
        (f"{PREFIX}/dashboard/main.js", "/dashboard/main.js"),
        (f"{PREFIX}/static_content/swagger-ui.css", "/static_content/swagger-ui.css"),
        (f"{PREFIX}/docs.json", "/docs.json"),  # BentoML's, which the table does not list
        (f"{PREFIX}/no/such/path", "/no/such/path"),
        ("/dashboard/main.js/", "/dashboard/main.js/"),
    ],
)
def test_target_below_the_prefix_has_its_path(target: str, inner: str) -> None:
    assert BELOW.inner(target.encode()) == inner.encode()


@pytest.mark.parametrize(
    "target",
    [
        f"{PREFIX}ality/predict",
        f"{PREFIX}predict",
        "/models/predict",
        "/MODELS/sentiment/predict",
        "/models%2Fsentiment/predict",
        f"{PREFIX}//predict",
        f"{PREFIX}{PREFIX}/predict",
        "/predict//",
        "//predict",
        "//",
        "/no/such/path/",
        "",
        "*",
        "http://127.0.0.1/predict",
        "/predict;v=1/",
        "/predict%2F",
        "/%70redict",
        "/admin%2Frollout",
        f"{PREFIX}/admin%2frollout",
        f"{PREFIX}/%61dmin/rollout/",
    ],
)
def test_other_targets_lead_to_no_endpoint(target: str) -> None:
    """A rule of a proxy about paths holds: no other spelling reaches what it guards."""
    inner = BELOW.inner(target.encode())
    assert inner not in LISTED
    # The server decodes it.
    assert unquote(inner).encode() not in LISTED


@pytest.mark.parametrize("target", [PREFIX, f"{PREFIX}?a=b"])
def test_prefix_alone_is_recognised(target: str) -> None:
    assert BELOW.is_prefix(target.encode())
    assert not AT_ROOT.is_prefix(target.encode())
    assert not BELOW.is_prefix(f"{PREFIX}/".encode())
    assert not AT_ROOT.is_prefix(b"")


@pytest.mark.parametrize("prefix", ["/predict", "/analytics", "/admin", "/docs"])
@pytest.mark.parametrize("path", WITHOUT)
def test_prefix_that_is_a_path_of_the_service_hides_none(prefix: str, path: str) -> None:
    targets = RequestTargets(prefix)
    assert targets.inner(path.encode()) == path.encode()


@given(st.text(max_size=60))
def test_any_target_is_found_once(target: str) -> None:
    inner = BELOW.inner(target.encode("utf-8"))
    if inner in LISTED:
        assert BELOW.inner(inner) == inner
