"""What BentoML puts around an app, and offers no setting for, is gone before the first request."""

from __future__ import annotations

from typing import Any

from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

import service
from web.framework import UNWANTED, FrameworkTrim


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
            Middleware(FrameworkTrim),
        ]
    )
    await start_and_stop(app)
    layer: Any = app.middleware_stack
    names = []
    while not isinstance(layer, FrameworkTrim):
        names.append(type(layer).__name__)
        layer = layer.app
    assert names == ["ServerErrorMiddleware", "GZipMiddleware"]


def test_it_is_what_the_services_are_built_with() -> None:
    """If BentoML renames it or leaves it out, this is to be known."""
    for each in (service.bento, *service.runners):
        names = [layer.cls.__name__ for layer in each.to_asgi(is_main=False).user_middleware]
        assert set(names) >= {*UNWANTED, FrameworkTrim.__name__}
