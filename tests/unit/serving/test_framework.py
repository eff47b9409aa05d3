"""Every seam with BentoML is still needed, and still fits.

A test that fails here after an upgrade of BentoML says that a seam can go, or has to change.
"""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from _bentoml_impl.server.mount import PassiveMount
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route
from starlette.types import ASGIApp

import service
from core.paths import ROOT
from serving.container import adapter_apis
from serving.framework import (
    LazyApp,
    json_apis,
)
from serving.pipeline import PredictionPipeline
from web.routes import POST_PATHS, listed_route
from web.schemas.predictions import PredictionReply, PredictRequest, RequestBody


async def tell_path(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


def match(app: ASGIApp, path: str) -> Match:
    found: Match
    found, _ = PassiveMount("/", app).matches({"type": "http", "method": "GET", "path": path})
    return found


def test_bentoml_asks_only_starlette_apps_for_their_routes() -> None:
    """Of any other app it takes it that all paths are its, those of its own pages too."""
    assert match(PlainTextResponse("ok"), "/no/such/path") == Match.FULL
    lazy = LazyApp()
    assert match(lazy, "/health") == Match.NONE
    lazy.set_app(Starlette(routes=[Route("/health", tell_path)]))
    assert match(lazy, "/health") == Match.FULL
    assert match(lazy, "/no/such/path") == Match.NONE


async def test_lazy_app_answers_once_it_is_set() -> None:
    lazy = LazyApp()
    lazy.set_app(Starlette(routes=[Route("/health", tell_path)]))
    transport = httpx.ASGITransport(lazy)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/health")).text == "/health"
        assert (await http.get("/other")).status_code == 404


def test_lazy_app_is_mounted_in_the_service() -> None:
    assert [app for app, *_ in service.bento.mount_apps] == [service.process.read_app]
    assert isinstance(service.process.read_app, LazyApp)


async def test_json_apis_are_the_functions_that_bentoml_declared() -> None:
    class Pipeline:
        async def predict(
            self, texts: list[str], version: str | None, endpoint: str, long_text: str | None
        ) -> list[Any]:
            raise LookupError(f"{texts} {version} {endpoint} {long_text}")

    fake = SimpleNamespace(container=SimpleNamespace(pipeline=Pipeline()))
    apis = json_apis(service.bento, fake)
    adapters = adapter_apis(cast("PredictionPipeline", Pipeline()))
    assert adapters.keys() | apis.keys() == POST_PATHS - {"/jobs"}
    assert not adapters.keys() & apis.keys()
    predict = apis["/predict"]
    assert predict.route == listed_route("POST", "/predict")
    assert (predict.name, predict.summary) == ("predict", "Sentiment of one text.")
    assert (predict.request, predict.reply) == (PredictRequest, PredictionReply)
    for path, api in apis.items():
        assert api.route.path == path
        assert issubclass(api.request, RequestBody)
    with pytest.raises(LookupError, match=r"\['fine'\] v2 /predict windows"):
        await predict.call(text="fine", version="v2", long_text="windows")


# models/registry/sources.py reads a model store of another place; models/staged.py asks where that
# of this user is; scripts/warm_image.py names
# BentoML's worker, to import it while an image is made; serving/worker.py runs it.
EXCEPTIONS = {
    "core/telemetry.py", "models/registry/sources.py", "models/staged.py", "scripts/warm_image.py",
    "serving/framework.py", "serving/worker.py",
}  # fmt: skip
PRIVATE = ("bentoml._internal", "_bentoml_impl", "_bentoml_sdk")
ROOMS = (
    "analytics", "cache", "core", "datafiles", "deploy", "loadtest", "migrations", "models",
    "monitoring", "rollout", "runners", "scoring", "scripts", "serving", "stats", "web",
)  # fmt: skip


def private_names(source: str) -> set[str]:
    """Modules of BentoML that are not public, as imports or as texts of their names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        found |= {name for name in names if name.startswith(PRIVATE)}
    return found


def test_only_the_seams_use_what_bentoml_does_not_publish() -> None:
    files = [ROOT / "service.py", *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    assert {file.parent.name for file in files} >= {"serving", "registry", "scripts", "web"}
    users = {file.relative_to(ROOT).as_posix() for file in files if private_names(file.read_text())}
    assert users == EXCEPTIONS


def test_every_room_is_searched_for_private_names() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/*.py")} | {
        path.parent.parent.name for path in ROOT.glob("*/*/*.py")
    }
    assert {room for room in rooms if not room.startswith(".")} - {"tests", "examples"} <= {*ROOMS}
