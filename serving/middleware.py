"""The middleware of the API and of the runners: every layer, in its order, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from core.key_ring import KeyRing
from core.settings import Settings
from runners.endpoints import Answers, RunnerEndpoints, RunnerKeyMiddleware, path_label
from runners.wire import SHARED_CALL_BYTES
from serving.framework import BentoMiddlewarePatch
from web.access import AccessMiddleware
from web.body import JsonBodyReader
from web.forwarded import Proxies
from web.json_api import JsonApiMiddleware, PostApi
from web.origin import OriginMiddleware
from web.problems import ProblemMiddleware
from web.request import RequestMiddleware
from web.response_headers import cors_options
from web.routes import route_of
from web.shedding import LoadShedder, LoadSheddingMiddleware

if TYPE_CHECKING:
    from web.idempotency import IdempotentAnswers
    from web.rate_limiter import RateLimiter


def api_layers(
    settings: Settings,
    shedder: LoadShedder,
    *,
    keys: KeyRing,
    proxies: Proxies,
    limiter: Callable[[], RateLimiter],
    apis: Callable[[], Mapping[str, PostApi]],
    repeated: Callable[[], IdempotentAnswers],
    stopping: Callable[[], bool],
) -> list[Middleware]:
    """The layers around the API, outermost first."""
    origins = settings.cors_origins
    body_reader = JsonBodyReader(settings.max_body_bytes, settings.body_timeout_seconds)
    return [
        # Outermost: it changes BentoML's layers, which lie outside it.
        Middleware(BentoMiddlewarePatch, template=lambda path: route_of("GET", path).path),
        # Around all that answers, so that a website's script can read a refusal too, and before the
        # count: a browser's preflight is no request of a client.
        *([Middleware(CORSMiddleware, **cors_options(origins))] if origins else []),
        # Before anything that costs: a flood must be cheap to refuse.
        Middleware(LoadSheddingMiddleware, shedder=shedder),
        # Around every answer: all of them are counted, logged, traced, and carry the headers.
        Middleware(RequestMiddleware, stopping=stopping),
        # Around all that raises, so that every error gets the one shape.
        Middleware(ProblemMiddleware),
        Middleware(OriginMiddleware, hosts=settings.accepted_hosts, origins=origins),
        # Before the body is read: a refused caller costs nothing more.
        Middleware(
            AccessMiddleware,
            keys=keys,
            limiter=limiter,
            proxies=proxies,
            allow_anonymous=settings.allow_anonymous,
        ),
        # Innermost: it answers the POSTs instead of BentoML's dispatch.
        Middleware(
            JsonApiMiddleware,
            apis=apis,
            body_reader=body_reader,
            timeout_seconds=settings.request_timeout_seconds,
            repeated=repeated,
        ),
    ]


def runner_layers(settings: Settings, answers: Callable[[], Answers]) -> list[Middleware]:
    """The layers around a runner, outermost first; `answers` gives what answers for it."""
    return [
        Middleware(BentoMiddlewarePatch, template=path_label),
        # Before the body is read.
        Middleware(RunnerKeyMiddleware, keys=settings.accepted_runner_keys),
        # In front of BentoML's dispatch, which would unpickle a body.
        Middleware(
            RunnerEndpoints,
            answers=answers,
            max_body_bytes=max(settings.max_body_bytes, SHARED_CALL_BYTES),
        ),
    ]
