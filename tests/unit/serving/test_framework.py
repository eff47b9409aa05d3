"""What BentoML puts around an app, and offers no setting for, is gone before the first request."""

from __future__ import annotations

from typing import Any

import httpx
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import service
from serving.framework import LABELLED_BY_PATH, UNWANTED, BentoMiddlewarePatch


async def start_and_stop(app: Starlette) -> None:
    came = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(came)

    async def send(_message: Any) -> None:
        return None

    await app({"type": "lifespan", "state": {}}, receive, send)


async def test_its_time_out_is_taken_out_and_all_else_stays() -> None:
    app = Starlette(
        middleware=[
            Middleware(GZipMiddleware),
            Middleware(TimeoutMiddleware, timeout=60),
            Middleware(BentoMiddlewarePatch),
        ]
    )
    await start_and_stop(app)
    layer: Any = app.middleware_stack
    names = []
    while not isinstance(layer, BentoMiddlewarePatch):
        names.append(type(layer).__name__)
        layer = layer.app
    assert names == ["ServerErrorMiddleware", "GZipMiddleware"]


def test_it_is_what_the_services_are_built_with() -> None:
    """If BentoML renames it or leaves it out, this is to be known."""
    for each in (service.bento, *service.runners.values()):
        names = [layer.cls.__name__ for layer in each.to_asgi(is_main=False).user_middleware]
        assert set(names) >= {*UNWANTED, *LABELLED_BY_PATH, BentoMiddlewarePatch.__name__}


class RunnerTrafficMetricsMiddleware:
    """What BentoML's of this name does with a path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.seen.append(scope["path"])
        await self.app(scope, receive, send)


async def test_its_metrics_see_templates_and_the_app_the_path() -> None:
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


async def test_a_door_stands_before_all() -> None:
    class LoadShedder:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("nobody is in")(scope, receive, send)

    app = Starlette(middleware=[Middleware(BentoMiddlewarePatch, door=LoadShedder)])
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/")).text == "nobody is in"
