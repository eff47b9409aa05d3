"""BentoML's middlewares and metrics still need the seams around them, which still fit."""

import asyncio
import gc
import struct
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx
import pytest
from bentoml._internal.server.http.instruments import (
    RunnerTrafficMetricsMiddleware as BentosTrafficMetrics,
)
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from prometheus_client import REGISTRY, Gauge
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import service
from core.metrics_files import FILE
from core.paths import ROOT
from runners.services import RunnerV1, RunnerV2
from serving.framework import (
    CONSTANT_PATHS,
    LABELLED_BY_PATH,
    METRICS_PATH,
    UNWANTED,
    BentoMiddlewarePatch,
)
from web.shedding import LoadShedder

# BentoML's decorator made services of the classes, which its types do not tell.
RUNNERS: tuple[Any, ...] = (RunnerV1, RunnerV2)


async def start_and_stop(app: Starlette) -> None:
    came = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(came)

    async def send(_message: Any) -> None:
        return None

    await app({"type": "lifespan", "state": {}}, receive, send)


async def test_bentomls_timeout_is_taken_out_and_all_else_stays() -> None:
    app = Starlette(
        middleware=[
            Middleware(GZipMiddleware),
            Middleware(TimeoutMiddleware, timeout=60),
            Middleware(BentoMiddlewarePatch, template=str),
        ]
    )
    await start_and_stop(app)
    layer: Any = app.middleware_stack
    names = []
    while not isinstance(layer, BentoMiddlewarePatch):
        names.append(type(layer).__name__)
        layer = layer.app
    assert names == ["ServerErrorMiddleware", "GZipMiddleware"]


def test_services_are_built_with_the_layers_that_the_patch_changes() -> None:
    """BentoML may rename a layer or leave it out."""
    for bento in (service.bento, *RUNNERS):
        names = [layer.cls.__name__ for layer in bento.to_asgi(is_main=False).user_middleware]
        assert set(names) >= {*UNWANTED, *LABELLED_BY_PATH, BentoMiddlewarePatch.__name__}


async def test_metrics_of_services_are_rendered_for_all_who_ask_at_a_time() -> None:
    """BentoML renders them for each, in as many threads."""
    for bento in (service.bento, *RUNNERS):
        app = bento.to_asgi(is_main=False)
        assert [getattr(route, "path", "") for route in app.routes].count(METRICS_PATH) == 1
    routes = [Route(METRICS_PATH, tell_path), Route("/{anything:path}", tell_path)]
    app = Starlette(routes=routes, middleware=[Middleware(BentoMiddlewarePatch, template=str)])
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        replies = await asyncio.gather(*(http.get(METRICS_PATH) for _ in range(20)))
        assert (await http.head(METRICS_PATH)).status_code == 200
        assert (await http.get("/other")).text == "/other"
    assert {reply.headers["content-type"] for reply in replies} == {
        "text/plain; version=1.0.0; charset=utf-8"
    }
    # The first began alone, and the others shared the second.
    assert len({reply.text for reply in replies}) <= 2
    assert all("# TYPE python_info gauge" in reply.text for reply in replies)


async def test_documents_that_never_change_are_made_once() -> None:
    """BentoML makes them for each request, without a limit."""
    made: list[str] = []

    async def document(request: Request) -> JSONResponse:
        made.append(request.url.path)
        return JSONResponse({"path": request.url.path}, 500 if len(made) == 1 else 200)

    paths = {getattr(route, "path", "") for route in service.bento.to_asgi(is_main=True).routes}
    assert paths >= CONSTANT_PATHS
    routes = [Route(path, document) for path in ("/schema.json", "/other")]
    app = Starlette(routes=routes, middleware=[Middleware(BentoMiddlewarePatch, template=str)])
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        replies = [await http.get("/schema.json") for _ in range(4)]
        await http.get("/other")
        await http.get("/other")
    assert [reply.status_code for reply in replies] == [500, 200, 200, 200]  # no failure stays
    assert {reply.text for reply in replies} == {'{"path":"/schema.json"}'}
    assert {reply.headers["content-type"] for reply in replies} == {"application/json"}
    assert made == ["/schema.json"] * 2 + ["/other"] * 2


class RunnerTrafficMetricsMiddleware:
    """What BentoML's of this name does with a path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.seen.append(scope["path"])
        await self.app(scope, receive, send)


async def test_bentomls_metrics_see_templates_and_the_app_the_path() -> None:
    answered: list[str] = []

    async def endpoint(request: Request) -> PlainTextResponse:
        answered.append(request.url.path)
        return PlainTextResponse("ok")

    app = Starlette(
        routes=[Route("/{anything:path}", endpoint)],
        middleware=[
            Middleware(RunnerTrafficMetricsMiddleware),
            Middleware(GZipMiddleware),
            Middleware(BentoMiddlewarePatch, template=lambda path: path[:3]),
        ],
    )
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path in ("/abcdef", "/abc", "/x"):
            assert (await http.get(path)).text == "ok"
    layer: Any = app.middleware_stack
    while not isinstance(layer, RunnerTrafficMetricsMiddleware):
        layer = layer.app
    assert layer.seen == ["/ab", "/ab", "/x"]
    assert answered == ["/abcdef", "/abc", "/x"]


async def tell_path(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


async def test_path_that_bentoml_does_not_label_reaches_the_app_too() -> None:
    """Without its metrics, the patch has no path to give back."""
    app = Starlette(
        routes=[Route("/{anything:path}", tell_path)],
        middleware=[Middleware(BentoMiddlewarePatch, template=lambda path: path[:3])],
    )
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/abcdef")).text == "/abcdef"


async def test_request_that_the_protocol_admitted_keeps_its_path() -> None:
    """The protocol makes the context of a request before the request has a path."""
    app = Starlette(
        routes=[Route("/{anything:path}", tell_path)],
        middleware=[
            Middleware(RunnerTrafficMetricsMiddleware),
            Middleware(BentoMiddlewarePatch, template=lambda path: path[:3]),
        ],
    )
    await start_and_stop(app)

    async def protocol(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.pop("path")
        assert LoadShedder({"/predict"}).admit(scope)
        scope["path"] = path
        await app(scope, receive, send)

    transport = httpx.ASGITransport(protocol)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/predict")).text == "/predict"


class Kept:
    """Something that a request's context refers to."""


async def test_bentoml_still_keeps_a_timer_for_each_answered_request() -> None:
    """If it no longer does, its middleware may stay."""
    kept: ContextVar[Kept] = ContextVar("kept")
    alive: WeakSet[Kept] = WeakSet()

    async def request(layer: ASGIApp) -> None:
        thing = Kept()
        alive.add(thing)
        kept.set(thing)

        async def send(_message: Any) -> None:
            return None

        async def receive() -> Any:
            raise AssertionError

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await layer(scope, receive, send)

    async def remaining(layer: ASGIApp) -> int:
        await asyncio.create_task(request(layer))
        await asyncio.sleep(0)  # the loop still holds the task that ended last
        gc.collect()
        return len(alive)

    answer = PlainTextResponse("ok")
    assert await remaining(answer) == 0
    assert await remaining(TimeoutMiddleware(answer, timeout=60)) == 1


async def test_bentoml_still_labels_its_metrics_by_the_raw_path() -> None:
    """If it no longer does, its middleware may see every path."""
    layer = BentosTrafficMetrics(PlainTextResponse("ok"), namespace="test_framework")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(layer), base_url="http://test"
    ) as http:
        await http.get("/wp-admin/17")
    labels = {
        sample.labels["endpoint"]
        for family in REGISTRY.collect()
        if family.name == "test_framework_request"
        for sample in family.samples
    }
    assert labels == {"/wp-admin/17"}


@pytest.fixture
def metrics_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a killed process that left an empty file, and of one that left a whole one."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "counter_4000001.db").touch()
    count = "import prometheus_client as m; m.Histogram('t', 'help', buckets=[1, 2]).observe(1.5)"
    subprocess.run([sys.executable, "-c", count], check=True, timeout=60)
    return tmp_path


def test_prometheus_client_still_raises_at_an_empty_file(metrics_folder: Path) -> None:
    """If it no longer does, /metrics may use its collector."""
    collector = MultiProcessCollector(None, str(metrics_folder))  # type: ignore[no-untyped-call]
    with pytest.raises(struct.error):
        collector.collect()  # type: ignore[no-untyped-call]


async def test_every_gauge_is_combined_in_a_way_that_is_known() -> None:
    """Of ours and of BentoML's, else it would be missing in /metrics."""
    layer = BentosTrafficMetrics(PlainTextResponse("ok"), namespace="test_combined")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(layer), base_url="http://test"
    ) as http:
        await http.get("/")
    modes = {
        gauge._multiprocess_mode
        for gauge in list(REGISTRY._collector_to_names)
        if isinstance(gauge, Gauge)
    }
    assert {"all", "livesum", "mostrecent"} <= modes
    assert [mode for mode in modes if not FILE.fullmatch(f"gauge_{mode}_1.db")] == []


def test_metrics_answer_with_an_empty_file_and_in_order(metrics_folder: Path) -> None:
    code = "from serving.framework import render_metrics\nprint(render_metrics().decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("t_")]
    assert lines == [
        't_bucket{le="1.0"} 0.0',
        't_bucket{le="2.0"} 1.0',
        't_bucket{le="+Inf"} 1.0',
        "t_count 1.0",
        "t_sum 1.5",
    ]
    assert (metrics_folder / "counter_4000001.db").exists()
