"""The middleware of the API and of the runners: every layer, in its order, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from core.settings import Settings
from runners.endpoints import Answer, RunnerEndpoints, RunnerKeyMiddleware
from runners.wire import SHARED_CALL_BYTES
from serving.framework import BentoMiddlewarePatch
from web.access import AccessMiddleware, Limiter
from web.body import JsonBodyReader
from web.json_api import JsonApi, JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.request import RequestMiddleware
from web.response_headers import cors_options
from web.routes import endpoint_label
from web.shedding import LoadShedder, LoadSheddingMiddleware

Layer = tuple[type, dict[str, Any]]


def api_layers(
    settings: Settings,
    shedder: LoadShedder,
    limiter: Callable[[], Limiter],
    apis: Callable[[], Mapping[str, JsonApi]],
    stopping: Callable[[], bool],
) -> list[Layer]:
    """The layers around the API, outermost first."""
    cors: list[Layer] = []
    if settings.cors_origins:
        cors = [(CORSMiddleware, cors_options(settings.cors_origins))]
    body_reader = JsonBodyReader(settings.max_body_bytes, settings.body_timeout_seconds)
    return [
        # Outermost: it changes BentoML's layers, which lie outside it.
        (BentoMiddlewarePatch, {"template": endpoint_label}),
        # Before anything that costs: a flood must be cheap to refuse.
        (LoadSheddingMiddleware, {"shedder": shedder}),
        # Before the count: a browser's preflight is no request of a client.
        *cors,
        # Around every answer: all of them are counted, logged, traced, and carry the headers.
        (RequestMiddleware, {"stopping": stopping}),
        # Around all that raises, so that every error gets the one shape.
        (ProblemMiddleware, {}),
        # Before the body is read: a refused caller costs nothing more.
        (
            AccessMiddleware,
            {
                "keys": settings.known_keys(),
                "limiter": limiter,
                "allow_anonymous": settings.allow_anonymous,
            },
        ),
        # Innermost: it answers the POSTs instead of BentoML's dispatch.
        (
            JsonApiMiddleware,
            {
                "apis": apis,
                "body_reader": body_reader,
                "timeout_seconds": settings.request_timeout_seconds,
            },
        ),
    ]


def runner_layers(
    settings: Settings, key: str | None, answers: Callable[[], Mapping[str, Answer]]
) -> list[Layer]:
    """The layers around a runner, outermost first; `answers` gives its endpoints, by path."""
    return [
        (BentoMiddlewarePatch, {}),
        # Before the body is read.
        (RunnerKeyMiddleware, {"key": key}),
        # In front of BentoML's dispatch, which would unpickle a body.
        (
            RunnerEndpoints,
            {
                "answers": answers,
                "max_body_bytes": max(settings.max_body_bytes, SHARED_CALL_BYTES),
            },
        ),
    ]
