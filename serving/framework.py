"""Changes what BentoML puts around a served app where it offers no setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

UNWANTED = frozenset(
    {
        # Keeps a timer, and all that it refers to, for each request until its time-out, long after
        # it was answered: at 1,500 requests a second a full garbage collection took 120 ms, in
        # which none moved. Ours (`JsonApiMiddleware`, the runners' deadlines) take theirs back.
        "TimeoutMiddleware",
        # Costs a third of an echo's time, whoever looks. `TracingMiddleware` is there instead.
        "OpenTelemetryMiddleware",
    }
)
# Labels its metrics with the path as it came: whoever asks for random paths makes them grow.
LABELLED_BY_PATH = frozenset({"RunnerTrafficMetricsMiddleware"})

_PATH = "sentiment.path"


class BentoMiddlewarePatch:
    """Takes `UNWANTED` out, has `LABELLED_BY_PATH` see templates, and puts a door before all.

    All of it lies outside of this middleware, and is changed before the first request.
    """

    def __init__(
        self,
        app: ASGIApp,
        template: Callable[[str], str] | None = None,
        door: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        """`template` makes a label of a path."""
        self._app = app
        self._template = template
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            app = scope["app"]
            self._change(app.middleware_stack)
            if self._door is not None:
                app.middleware_stack = self._door(app.middleware_stack)
        elif _PATH in scope:
            scope["path"] = scope.pop(_PATH)
        await self._app(scope, receive, send)

    def _change(self, layer: Any) -> None:
        while not isinstance(layer, BentoMiddlewarePatch):
            while type(layer.app).__name__ in UNWANTED:
                layer.app = layer.app.app
            if self._template is not None and type(layer.app).__name__ in LABELLED_BY_PATH:
                layer.app = _Templated(layer.app, self._template)
                layer = layer.app
            layer = layer.app


class _Templated:
    """Shows the path by its template, as far as `BentoMiddlewarePatch`."""

    def __init__(self, app: ASGIApp, template: Callable[[str], str]) -> None:
        self.app = app
        self._template = template

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # Not a copy: what is left in the scope further in is to be seen outside.
            scope[_PATH] = scope["path"]
            scope["path"] = self._template(scope["path"])
        await self.app(scope, receive, send)
