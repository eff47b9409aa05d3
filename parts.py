"""What a running API process is made of.

service.py imports this when serving starts, not before: the processes of the runners import
service.py too, and would pay half of their start for SQLAlchemy, FastAPI and redis.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI

from analytics.database import connected, create_engine
from analytics.feedback import FeedbackStore
from analytics.log_writer import LogWriter
from analytics.prediction_log import PredictionLog
from analytics.read_api import analytics_router
from analytics.reader import Reader
from analytics.upkeep import Upkeep
from cache.prediction_cache import PredictionCache
from prediction_path import PredictionPath
from redis_connection import connect
from runners.client import RunnerApi, RunnerClient
from settings import Settings
from values import Split, Version
from web.get_app import get_app
from web.json_api import JsonApi
from web.openapi import openapi_document
from web.operations import operations_router
from web.rate_limiter import RateLimiter

DRAIN_SECONDS = 10.0


class Parts:
    """What a running API process is made of; made on its event loop, when serving starts."""

    def __init__(self, settings: Settings, runners: Mapping[Version, RunnerApi]) -> None:
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
        self.upkeep = Upkeep(self.engine, retention_days=settings.log_retention_days)
        self.reader = Reader(self.engine)
        self.feedback = FeedbackStore(
            self.engine, lambda: self.log.flush(settings.database_timeout_seconds)
        )
        self.runners = {
            version: RunnerClient(version, runner, timeout_seconds=settings.request_timeout_seconds)
            for version, runner in runners.items()
        }
        self.path = PredictionPath(
            self.runners,
            self.cache,
            self.log,
            Split(settings.ab_salt, settings.ab_v2_percent),
        )

    def start(self) -> None:
        self.log.start()
        self.upkeep.start()
        for runner in self.runners.values():
            runner.start()

    async def stop(self) -> None:
        for runner in self.runners.values():
            await runner.stop()
        await self.upkeep.stop()
        await self.log.stop(DRAIN_SECONDS)
        await self.redis.aclose()
        await self.engine.dispose()

    async def database_connected(self) -> bool:
        return await connected(self.engine)

    async def redis_connected(self) -> bool:
        return await self.cache.connected()

    async def cache_size(self) -> int | None:
        return await self.cache.size()


def get_endpoints(parts: Parts, json_apis: Collection[JsonApi], version: str) -> FastAPI:
    """The app of the GET endpoints, the documentation of the POSTs among them."""

    @cache
    def openapi() -> dict[str, Any]:
        return openapi_document(json_apis, app.routes, version=version)

    app = get_app(operations_router(lambda: parts, openapi), analytics_router(lambda: parts.reader))
    return app
