"""The table of routes lists every endpoint that an API process has, and no other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import service
from core.paths import ROOT
from core.version import VERSION
from serving.container import Container, adapter_apis, read_app
from serving.framework import json_apis
from serving.pipeline import PredictionPipeline
from web.openapi import BENTO_ROUTES, openapi_document
from web.routes import ROUTES, UNKNOWN, route_of

# BentoML answers these itself.
OF_BENTOML = {"/healthz", "/livez", "/readyz", "/metrics", "/static_content/"}
# These too, but they are not part of this service: unknown paths, for admins alone.
UNLISTED = {"/schema.json", "/docs.json"}
# BentoML's own page, which the redirect to the dashboard lies in front of.
SHADOWED = {"/"}
# No endpoint of the read app asks for a part of the container before the first request.
NO_CONTAINER = cast("Container", None)
PIPELINE = cast("PredictionPipeline", SimpleNamespace(predict=None))
OWN_APIS = json_apis(service.bento, object())
APIS = {**OWN_APIS, **adapter_apis(PIPELINE)}


def never_ready() -> bool:
    return False


def endpoints(routes: Iterable[Any]) -> set[tuple[str, str]]:
    """Method and path of every route; a folder of files is a GET of a path that ends in `/`."""
    found: set[tuple[str, str]] = set()
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI's wrapper of an included router
            found |= endpoints(route.original_router.routes)
        elif getattr(route, "methods", None):
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
        else:
            found.add(("GET", f"{route.path}/"))
    return found


def whole_document() -> dict[str, Any]:
    app = read_app(NO_CONTAINER, APIS.values(), VERSION, never_ready)
    return openapi_document(APIS.values(), app.routes, version=VERSION)


def test_every_endpoint_is_listed_and_every_listed_route_is_an_endpoint() -> None:
    read = endpoints(read_app(NO_CONTAINER, APIS.values(), VERSION, never_ready).routes)
    posts = {("POST", api.route.path) for api in APIS.values()}
    listed = {(route.method, route.path) for route in ROUTES}
    assert listed == read | posts | {("GET", path) for path in OF_BENTOML}
    assert not {path for _, path in read} & OF_BENTOML


def test_bentoml_serves_the_paths_that_are_left_to_it() -> None:
    mounted = {app for app, *_ in service.bento.mount_apps}
    own = [
        route
        for route in service.bento.to_asgi(is_main=True).routes
        if getattr(route, "app", None) not in mounted
    ]
    posts = {("POST", api.route) for api in service.bento.apis.values()}
    assert endpoints(own) - posts == {("GET", path) for path in OF_BENTOML | UNLISTED | SHADOWED}
    assert all(route_of("GET", path) is UNKNOWN for path in UNLISTED)


def test_document_lists_every_route_but_pages_and_files() -> None:
    document = whole_document()
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    pages = {
        *("/", "/dashboard", "/dashboard/", "/docs", "/docs/", "/static_content/"),
        "/openapi.json",
    }
    listed = {(route.method, route.path) for route in ROUTES if route.path not in pages}
    # BentoML's, the same as /livez.
    assert documented == listed - {("GET", "/healthz")}
    assert BENTO_ROUTES.keys() == OF_BENTOML - {"/healthz", "/static_content/"}
    for api in APIS.values():
        route = api.route
        statuses = set(document["paths"][route.path]["post"]["responses"])
        assert {str(route.success_status), *map(str, route.problems)} <= statuses


def test_fuzz_leaves_no_documented_endpoint_out() -> None:
    """`make fuzz` reads the document; its configuration says what to expect, and skips nothing."""
    paths = whole_document()["paths"]
    configuration = tomllib.loads((ROOT / "schemathesis.toml").read_text(encoding="utf-8"))
    assert configuration.keys() == {"hooks", "checks", "operations"}
    for operation in configuration["operations"]:
        assert operation.keys() == {"include-path-regex", "checks"}
        assert any(re.match(operation["include-path-regex"], path) for path in paths), operation


def test_document_has_414_where_a_client_chooses_what_is_in_the_target_and_nowhere_else() -> None:
    operations = [
        operation for path in whole_document()["paths"].values() for operation in path.values()
    ]
    for operation in operations:
        chosen = {one["in"] for one in operation.get("parameters", ())} & {"path", "query"}
        assert ("414" in operation["responses"]) == bool(chosen)
    assert any("414" in operation["responses"] for operation in operations)


def test_document_has_429_where_a_limit_is_and_nowhere_else() -> None:
    document = whole_document()
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "429" in operation["responses"]
    }
    assert documented == {(route.method, route.path) for route in ROUTES if route.limit is not None}
