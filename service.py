"""The Bento service: composition at the top, one short method per API."""

from __future__ import annotations

import functools
import logging
from typing import Any
from uuid import UUID

import bentoml

from analytics.database import connected, create_engine
from analytics.feedback import FeedbackStore
from analytics.log_writer import LogWriter
from analytics.prediction_log import PredictionLog
from analytics.queries import AnalyticsQueries
from analytics.read_api import analytics_router
from cache.prediction_cache import PredictionCache
from prediction_path import PredictionPath, assign_version
from redis_connection import connect
from runners.client import RunnerApi, RunnerClient
from runners.services import RunnerV1, RunnerV2
from schemas import (
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
from settings import Settings, get_settings
from values import Sentiment, Version
from web.body_guard import BodyGuard
from web.disconnect import DisconnectMiddleware
from web.get_app import get_app
from web.instrumentation import InstrumentationMiddleware
from web.json_api import JsonApi, JsonApiMiddleware
from web.openapi import PostApi, openapi_document
from web.operations import operations_router
from web.problems import ProblemMiddleware
from web.rate_limit import RateLimiter, RateLimitMiddleware

VERSION = "0.1.0"
DRAIN_SECONDS = 10.0

settings = get_settings()
logging.getLogger("bentoml").setLevel(settings.log_level)


class Parts:
    """What a running API process is made of; made on its event loop, when serving starts."""

    def __init__(self, settings: Settings, runners: dict[Version, RunnerApi]) -> None:
        self.redis = connect(
            settings.redis_connection_url(), timeout_seconds=settings.redis_timeout_seconds
        )
        self.engine = create_engine(
            settings.sqlalchemy_url(),
            pool_size=settings.database_pool_size,
            timeout_seconds=settings.database_timeout_seconds,
        )
        self.limiter = RateLimiter(
            self.redis,
            limits={
                "predict": settings.rate_limit_predict,
                "batch": settings.rate_limit_batch,
                "analytics": settings.rate_limit_analytics,
            },
        )
        self.cache = PredictionCache(
            self.redis,
            ttl_seconds=settings.cache_ttl_seconds,
            local_entries=settings.local_cache_entries,
        )
        self.log = PredictionLog(
            LogWriter(self.engine, text_storage=settings.text_storage),
            flush_seconds=settings.log_flush_seconds,
            max_pending=settings.log_max_pending,
        )
        self.queries = AnalyticsQueries(self.engine)
        self.feedback = FeedbackStore(
            self.engine, lambda: self.log.flush(settings.database_timeout_seconds)
        )
        self.runners = {
            version: RunnerClient(version, runner, timeout_seconds=settings.request_timeout_seconds)
            for version, runner in runners.items()
        }
        self.path = PredictionPath(self.runners, self.cache, self.log)

    def start(self) -> None:
        self.log.start()
        for runner in self.runners.values():
            runner.start()

    async def stop(self) -> None:
        for runner in self.runners.values():
            await runner.stop()
        await self.log.stop(DRAIN_SECONDS)
        await self.redis.aclose()
        await self.engine.dispose()

    async def database_connected(self) -> bool:
        return await connected(self.engine)

    async def redis_connected(self) -> bool:
        return await self.cache.connected()

    async def cache_size(self) -> int | None:
        return await self.cache.size()


_running: list[SentimentService] = []


def parts() -> Parts:
    """The parts of this process; there is one service in it."""
    return _running[-1].parts


def success_status(api_name: str) -> int:
    return 202 if api_name == "feedback" else 200


@functools.cache
def openapi() -> dict[str, Any]:
    post_apis = [
        PostApi(
            route=api.route,
            name=api.name,
            summary=api.doc,
            request=api.input_spec,
            reply=api.output_spec,
            success_status=success_status(api.name),
            further_problems=(404,) if api.name == "feedback" else (),
        )
        for api in bento.apis.values()
    ]
    return openapi_document(post_apis, http_get_app.routes, version=VERSION)


http_get_app = get_app(operations_router(parts, openapi), analytics_router(lambda: parts().queries))


@bentoml.service(  # type: ignore[operator]
    name="sentiment",
    workers=settings.api_workers,
    http={"host": settings.host, "port": settings.port},
    # Our own deadline answers in our own shape; the framework's stands behind it. No further than
    # it must, for its timers stay until then when their requests are long over.
    traffic={"timeout": settings.request_timeout_seconds + 1.0},
    logging={"access": {"enabled": False}},
    envs=settings.process_environment(),
    tracing=settings.tracing(),
    runner_probe={"enabled": False},  # __is_ready__ asks the runners
)
@bentoml.asgi_app(http_get_app, path="/")
class SentimentService:
    """Sentiment of English texts by two DistilBERT versions."""

    runner_v1: RunnerApi = bentoml.depends(RunnerV1)  # type: ignore[call-overload]
    runner_v2: RunnerApi = bentoml.depends(RunnerV2)  # type: ignore[call-overload]

    @bentoml.on_startup
    async def start(self) -> None:
        self.parts = Parts(settings, {"v1": self.runner_v1, "v2": self.runner_v2})
        self.parts.start()
        self.json_apis = {
            api.route: JsonApi(
                api.input_spec, functools.partial(api.func, self), success_status(api.name)
            )
            for api in bento.apis.values()
        }
        _running.append(self)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        _running.remove(self)
        await self.parts.stop()

    async def __is_ready__(self) -> bool:
        return all(runner.ready for runner in self.parts.runners.values())

    @bentoml.api(route="/predict", input_spec=PredictRequest, output_spec=PredictionReply)
    async def predict(self, text: str, version: Version | None) -> PredictionReply:
        """Sentiment of one text."""
        version = version or settings.default_version
        [prediction] = await self.parts.path.predict([text], version, "/predict")
        return PredictionReply.of(prediction)

    @bentoml.api(route="/predict/batch", input_spec=BatchRequest, output_spec=BatchReply)
    async def predict_batch(self, texts: list[str], version: Version | None) -> BatchReply:
        """Sentiment of many texts, in their order."""
        version = version or settings.default_version
        return BatchReply.of(await self.parts.path.predict(texts, version, "/predict/batch"))

    @bentoml.api(route="/predict/ab", input_spec=AbRequest, output_spec=PredictionReply)
    async def predict_ab(self, text: str, subject: str | None) -> PredictionReply:
        """Sentiment of one text by the version that the A/B split deals the subject."""
        version = assign_version(subject, v2_percent=settings.ab_v2_percent, salt=settings.ab_salt)
        [prediction] = await self.parts.path.predict([text], version, "/predict/ab")
        return PredictionReply.of(prediction)

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


# BentoML's decorator has made a service of the class, which its types do not tell.
bento: Any = SentimentService
# Outermost first.
bento.add_asgi_middleware(InstrumentationMiddleware)
bento.add_asgi_middleware(DisconnectMiddleware)
bento.add_asgi_middleware(ProblemMiddleware)
bento.add_asgi_middleware(RateLimitMiddleware, limiter=lambda: parts().limiter)
bento.add_asgi_middleware(BodyGuard, max_body_bytes=settings.max_body_bytes)
bento.add_asgi_middleware(
    JsonApiMiddleware,
    apis=lambda: _running[-1].json_apis,
    timeout_seconds=settings.request_timeout_seconds,
)
