"""The Bento service: composition at the top, one short method per API."""

from __future__ import annotations

import asyncio
import functools
import logging
import platform
from typing import TYPE_CHECKING, Any
from uuid import UUID

import bentoml
from starlette.middleware.cors import CORSMiddleware

from core import metrics
from core.gc import freeze_gc
from core.logging import configure_logs
from core.request_context import caller
from core.settings import get_settings
from core.tracing import start_tracing, stop_tracing
from core.types import Sentiment, Version
from runners.endpoints import RunnerEndpoints
from runners.services import CLASSIFY_ROUTE, RunnerV1, RunnerV2, answers, check_models
from runners.wire import SHARED_CALL_BYTES
from serving.draining import Draining
from serving.framework import BentoMiddlewarePatch
from serving.http_protocol import use_bounded_protocol
from serving.lazy_app import LazyApp
from serving.supervision import is_worker, supervise
from web.authentication import AuthenticationMiddleware
from web.body_guard import BodyGuard
from web.disconnect import DisconnectMiddleware
from web.instrumentation import InstrumentationMiddleware
from web.json_api import JsonApi, JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.rate_limit import RateLimitMiddleware
from web.response_headers import ResponseHeadersMiddleware, cors_options
from web.routes import ADMIN_ROUTES, POST_ROUTES, PREDICT_ROUTES, endpoint_label, traced_route
from web.runner_key import RunnerKeyMiddleware
from web.schemas.admin import ReloadRequest, RolloutReply, RolloutRequest
from web.schemas.predictions import (
    AbCompareReply,
    AbCompareRequest,
    AbRequest,
    BatchReply,
    BatchRequest,
    FeedbackReply,
    FeedbackRequest,
    PredictionReply,
    PredictRequest,
)
from web.shedding import LoadShedder
from web.tracing import TracingMiddleware

if TYPE_CHECKING:
    from collections.abc import Collection

    from runners.host import RunnerApi

VERSION = "0.1.0"

settings = get_settings()
start_logs = functools.partial(configure_logs, settings.log_level, settings.log_format)
if is_worker():
    start_logs()
settings.check_open()


def before_workers(services: Collection[str]) -> None:
    start_logs()
    check_models(services, settings)


supervise(stop_seconds=settings.stop_seconds, before=before_workers)


_running: list[SentimentService] = []


def running() -> SentimentService:
    """The service of this process; there is one in it."""
    return _running[-1]


def json_api(api: Any, service: SentimentService) -> JsonApi:
    """What BentoML's decorators declared of an API."""
    is_feedback = api.name == "feedback"
    is_admin = api.route in ADMIN_ROUTES
    return JsonApi(
        route=api.route,
        name=api.name,
        summary=api.doc,
        request=api.input_spec,
        reply=api.output_spec,
        call=functools.partial(api.func, service),
        success_status=202 if is_feedback else 200,
        further_problems=(404,) if is_feedback else (404, 409) if is_admin else (),
        is_audited=is_admin,
    )


runners: dict[Version, Any] = {"v1": RunnerV1, "v2": RunnerV2}
runner_key = settings.runner_key.get_secret_value() if settings.runner_key else None
draining = Draining(settings.drain_seconds)
# The GET endpoints.
read_app = LazyApp()


@bentoml.service(  # type: ignore[operator]
    name="sentiment",
    workers=settings.api_workers,
    http={"host": settings.host, "port": settings.port},
    logging={"access": {"enabled": False}},
    runner_probe={"enabled": False},  # __is_ready__ asks the runners
)
@bentoml.asgi_app(read_app, path="/")
class SentimentService:
    """Sentiment of English texts by two DistilBERT versions."""

    runner_v1: RunnerApi = bentoml.depends(RunnerV1)  # type: ignore[call-overload]
    runner_v2: RunnerApi = bentoml.depends(RunnerV2)  # type: ignore[call-overload]

    @bentoml.on_startup
    async def start(self) -> None:
        # The runners' processes start without them.
        from runners.hosts import runner_hosts
        from serving.container import Container, get_endpoints

        if settings.is_open:
            logging.getLogger("bentoml.sentiment").warning(
                "no API_KEYS: whoever reaches %s:%d may ask for all", settings.host, settings.port
            )
        if settings.is_traced:
            start_tracing(settings.otel_service_name)
        in_process: dict[Version, RunnerApi] = {"v1": self.runner_v1, "v2": self.runner_v2}
        self.hosts = {
            version: runner_hosts(version, runner, in_process[version], runner_key)
            for version, runner in runners.items()
        }
        self.parts = Container(settings, self.hosts)
        self.json_apis = {api.route: json_api(api, self) for api in bento.apis.values()}
        read_app.set_app(get_endpoints(self.parts, self.json_apis.values(), VERSION))
        self.parts.start()
        metrics.build_info.labels(VERSION, platform.python_version(), bentoml.__version__).set(1)
        draining.begin_at_sigterm()
        door.watch.start()
        _running.append(self)
        freeze_gc()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        _running.remove(self)
        door.watch.stop()
        await self.parts.stop()
        await asyncio.gather(*(hosts.close() for hosts in self.hosts.values()))
        await asyncio.to_thread(stop_tracing)

    async def __is_ready__(self) -> bool:
        return self.parts.ready and not draining.active

    @bentoml.api(route="/predict", input_spec=PredictRequest, output_spec=PredictionReply)
    async def predict(self, text: str, version: Version | None) -> PredictionReply:
        """Sentiment of one text."""
        [prediction] = await self.parts.path.predict([text], version, "/predict")
        return PredictionReply.of(prediction)

    @bentoml.api(route="/predict/batch", input_spec=BatchRequest, output_spec=BatchReply)
    async def predict_batch(self, texts: list[str], version: Version | None) -> BatchReply:
        """Sentiment of many texts, in their order."""
        return BatchReply.of(await self.parts.path.predict(texts, version, "/predict/batch"))

    @bentoml.api(route="/predict/ab", input_spec=AbRequest, output_spec=PredictionReply)
    async def predict_ab(self, text: str, subject: str | None) -> PredictionReply:
        """Sentiment of one text by the version that the A/B split deals the subject."""
        return PredictionReply.of(await self.parts.path.predict_ab(text, subject))

    @bentoml.api(
        route="/predict/ab-compare", input_spec=AbCompareRequest, output_spec=AbCompareReply
    )
    async def predict_ab_compare(self, text: str) -> AbCompareReply:
        """Sentiment of one text by both versions, side by side."""
        return AbCompareReply.of(await self.parts.path.compare(text))

    @bentoml.api(route="/feedback", input_spec=FeedbackRequest, output_spec=FeedbackReply)
    async def feedback(self, prediction_id: UUID, label: Sentiment) -> FeedbackReply:
        """The true label of a prediction; the latest one counts."""
        await self.parts.feedback.add(prediction_id, label)
        return FeedbackReply(prediction_id=prediction_id, label=label)

    @bentoml.api(route="/admin/rollout", input_spec=RolloutRequest, output_spec=RolloutReply)
    async def rollout(self, /, **asked: Any) -> RolloutReply:
        """Another rollout policy: shares, shadow, schedule, guardrails, roles."""
        return RolloutReply.of(await self.parts.rollout.change(author=caller(), **asked))

    @bentoml.api(route="/admin/models/reload", input_spec=ReloadRequest, output_spec=RolloutReply)
    async def reload_model(self, /, **asked: Any) -> RolloutReply:
        """Another model for a version, loaded beside the one that answers; see /health."""
        return RolloutReply.of(await self.parts.rollout.reload(author=caller(), **asked))


# BentoML's decorator has made a service of the class, which its types do not tell.
bento: Any = SentimentService
door = LoadShedder(PREDICT_ROUTES, full=lambda: running().parts.full)
use_bounded_protocol(
    header_timeout_seconds=settings.body_timeout_seconds,
    keep_alive_seconds=settings.keep_alive_seconds,
    door=door,
)
# Outermost first.
bento.add_asgi_middleware(BentoMiddlewarePatch, template=endpoint_label, door=door.before)
if settings.cors_origins:
    bento.add_asgi_middleware(CORSMiddleware, **cors_options(settings.cors_origins))
bento.add_asgi_middleware(ResponseHeadersMiddleware, stopping=lambda: draining.active)
bento.add_asgi_middleware(TracingMiddleware, route=traced_route)
bento.add_asgi_middleware(InstrumentationMiddleware)
bento.add_asgi_middleware(DisconnectMiddleware, paths=POST_ROUTES)
bento.add_asgi_middleware(ProblemMiddleware)
bento.add_asgi_middleware(
    AuthenticationMiddleware,
    keys=settings.known_keys(),
    anonymous_from_elsewhere=settings.allow_anonymous,
)
bento.add_asgi_middleware(RateLimitMiddleware, limiter=lambda: running().parts.limiter)
bento.add_asgi_middleware(
    BodyGuard,
    max_body_bytes=settings.max_body_bytes,
    body_timeout_seconds=settings.body_timeout_seconds,
)
bento.add_asgi_middleware(
    JsonApiMiddleware,
    apis=lambda: running().json_apis,
    timeout_seconds=settings.request_timeout_seconds,
)
# An API process that gives a call up hangs up on the runner.
for version, runner in runners.items():
    runner.add_asgi_middleware(BentoMiddlewarePatch)
    runner.add_asgi_middleware(RunnerKeyMiddleware, key=runner_key)
    runner.add_asgi_middleware(TracingMiddleware, route={CLASSIFY_ROUTE: CLASSIFY_ROUTE}.get)
    runner.add_asgi_middleware(DisconnectMiddleware, paths={CLASSIFY_ROUTE})
    runner.add_asgi_middleware(
        RunnerEndpoints,
        answers=functools.partial(answers, version),
        max_body_bytes=max(settings.max_body_bytes, SHARED_CALL_BYTES),
    )
