"""The parts of a running API process: made, started and stopped in one place.

serving/process imports this when serving starts, not before: the runners' processes import
service.py too, and would pay half of their start for SQLAlchemy, FastAPI and redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from analytics.arm_metrics import arm_metrics
from analytics.content import ContentSampler
from analytics.feedback.store import FeedbackStore
from analytics.log.prediction_log import PredictionLog
from analytics.log.rejected import has_rejected_lately
from analytics.log.seal import SpoolSeal
from analytics.log.segments import is_overdue
from analytics.log.shipper_supervisor import ShipperSupervisor
from analytics.log.spool import Spool
from analytics.partition_maintenance import PartitionMaintenance
from analytics.reader import Reader
from analytics.review.draw import ReviewDraws
from cache.keys import CacheKeys
from cache.prediction_cache import PredictionCache
from core import metrics
from core.key_ring import KeyRing
from core.postgres import connected, create_engine
from core.redis import RedisCircuit, connect
from core.settings import Settings
from core.shared_rendering import SharedRendering
from core.types import Prediction, Version
from rollout.admin import RolloutAdmin
from rollout.controller import RolloutController
from rollout.live import LivePolicy
from rollout.policy import RolloutPolicy, Weights
from rollout.record import PolicyRecord
from rollout.shadow import Shadow
from rollout.store import PolicyStore
from rollout.traffic import Traffic
from runners.admission import QueueBounds, RecentCallers
from runners.client import RunnerClient, have_room
from runners.model_store import load_problem
from runners.transport import RunnerApi
from scoring.job_folders import JobFolders
from scoring.job_room import JobRoom
from scoring.job_runner import JobRunner
from scoring.job_store import JobStore
from serving.cache_secret import FILE as CACHE_SECRET_FILE
from serving.cache_secret import CacheSecret
from serving.pipeline import PredictionPipeline
from web.adapters.invocations import invocations_api
from web.adapters.open_inference import infer_apis
from web.adapters.text_classification import classification_apis
from web.dashboard.page import add_dashboard
from web.idempotency import IdempotentAnswers
from web.json_api import PostApi
from web.key_use import KeyUse
from web.openapi import openapi_document
from web.rate_limiter import RateLimiter
from web.read_api.analytics import analytics_router
from web.read_api.app import create_read_app
from web.read_api.jobs import jobs_router
from web.read_api.keys import keys_router
from web.read_api.open_inference import open_inference_router
from web.read_api.operations import operations_router
from web.read_api.ping import ping_router
from web.read_api.rollout import rollout_router
from web.read_api.uploads import UploadBounds

# Enough for a guardrail's query, a partition's and the policy's at once.
MAX_OWN_CONNECTIONS = 3
# /health waits so long for the disk: as long as for PostgreSQL.
DISK_SECONDS = 2.0


class Container:
    """Holds every part of an API process; made on its event loop, when serving starts."""

    def __init__(
        self,
        settings: Settings,
        runners: Mapping[Version, RunnerApi],
        keys: KeyRing,
        local: Collection[Version],
    ) -> None:
        """`local` are the versions whose runners have the model store of this machine."""
        self._local = local
        self.keys = keys
        self.redis = connect(
            settings.redis_connection_url(), timeout_seconds=settings.redis_timeout_seconds
        )
        make_engine = partial(
            create_engine,
            settings.sqlalchemy_url(),
            timeout_seconds=settings.database_timeout_seconds,
        )
        # Apart from what clients ask for, however many wait for it: the policy, the guardrails.
        # Who evaluates the guardrails holds one, the leader's, and asks for the policy by another.
        own = min(MAX_OWN_CONNECTIONS, max(2, settings.database_pool_size // 2))
        self.own_engine = make_engine(pool_size=own)
        self.client_engine = make_engine(pool_size=settings.database_pool_size - own)
        circuit = RedisCircuit()
        self.limiter = RateLimiter(
            self.redis,
            max_batch_texts=settings.max_batch_texts,
            circuit=circuit,
            limits={
                "predict": settings.rate_limit_predict,
                "batch": settings.rate_limit_batch,
                "analytics": settings.rate_limit_analytics,
                "admin": settings.rate_limit_admin,
            },
        )
        self.cache_keys = CacheKeys()
        self.repeated = IdempotentAnswers(
            self.redis,
            seconds=settings.idempotency_seconds,
            circuit=circuit,
            secret=lambda: self.cache_keys.secret,
        )
        self.key_use = KeyUse(keys, self.redis, circuit)
        self.cache = PredictionCache(
            self.redis,
            ttl_seconds=settings.cache_ttl_seconds,
            local_entries=settings.local_cache_entries,
            circuit=circuit,
        )
        self.cache_secret = CacheSecret(
            self.cache_keys,
            self.own_engine,
            settings.hash_keys(),
            settings.data_folder / CACHE_SECRET_FILE,
        )
        self.spool = Spool(
            settings.spool_folder(),
            max_bytes=settings.log_max_bytes,
            durability=settings.log_durability,
            when_full=settings.log_when_full,
        )
        folder = settings.spool_folder()
        self._log_rejects = SharedRendering(lambda: asyncio.to_thread(has_rejected_lately, folder))
        self._log_overdue = SharedRendering(lambda: asyncio.to_thread(is_overdue, folder))
        self.sinks = settings.sinks
        self._log_drain_seconds = settings.log_drain_seconds
        metrics.log_max_bytes.set(settings.log_max_bytes)
        self.log = PredictionLog(
            self.spool,
            SpoolSeal(settings.spool_folder()),
            text_storage=settings.text_storage,
            when_full=settings.log_when_full,
        )
        self.shipper = ShipperSupervisor(settings.spool_folder(), has_sinks=bool(settings.sinks))
        self.partition_maintenance = PartitionMaintenance(
            self.own_engine,
            retention_days=settings.log_retention_days,
            text_days=settings.text_retention_days,
            admin_log_days=settings.admin_log_retention_days,
        )
        self.reader = Reader(self.client_engine)
        self.review_draws = ReviewDraws(self.client_engine)
        self.feedback = FeedbackStore(
            self.client_engine,
            settings.spool_folder(),
            request_seconds=settings.request_timeout_seconds,
        )
        bounds = QueueBounds(
            texts=settings.max_queued_texts,
            tokens=settings.max_queued_tokens,
            seconds={
                "interactive": settings.max_queue_seconds,
                "bulk": settings.max_bulk_queue_seconds,
            },
        )
        recent_callers = RecentCallers()
        self.runners = {
            version: RunnerClient(
                version,
                runner,
                bounds,
                timeout_seconds=settings.request_timeout_seconds,
                recent=recent_callers,
                follows_policy=True,
            )
            for version, runner in runners.items()
        }
        policies = PolicyStore(self.own_engine)
        self.live_policy = LivePolicy(
            policies,
            configured_policy(settings),
            settings.data_folder / "rollout.json",
            on_policy=self._set_desired_models,
        )
        self.rollout_controller = RolloutController(
            self.live_policy,
            policies,
            partial(arm_metrics, Reader(self.own_engine)),
            self._revisions,
        )
        self.rollout = RolloutAdmin(
            self.live_policy, policies, self.rollout_controller, model_problem=self._model_problem
        )
        self.traffic = Traffic(
            lambda: self.live_policy.record,
            lambda version: self.runners[version].last_description,
            lambda: self.live_policy.earlier,
        )
        self.shadow = Shadow(self._ask_challenger)
        job_folders = JobFolders(settings.data_folder / "jobs")
        self.jobs = JobStore(
            job_folders,
            JobRoom(job_folders, max_bytes=settings.job_max_bytes),
            input_folders=settings.job_folders,
            retention=timedelta(hours=settings.job_retention_hours),
        )
        self.job_runner = JobRunner(self.jobs, self.runners)
        self.upload_bounds = UploadBounds(settings.job_upload_bytes, settings.body_timeout_seconds)
        self.content_sampler = ContentSampler(
            self.own_engine, texts_per_second=settings.content_texts_per_second
        )
        self.pipeline = PredictionPipeline(
            self.runners,
            self.cache,
            self.log,
            cache_keys=self.cache_keys,
            recent=recent_callers,
            policy=self.traffic.policy,
            shadow=self.shadow.offer,
            sample=self.content_sampler.offer,
            long_text=settings.long_text,
        )

    async def start(self) -> None:
        """Start what works in the background; the policy is known then, if PostgreSQL answers."""
        await self._learn_policy()
        self.keys.start()
        self.key_use.start()
        self.cache_secret.start()
        self.spool.start()
        self.log.start()
        self.shipper.start()
        self.partition_maintenance.start()
        for runner in self.runners.values():
            runner.start()
        self.live_policy.start()
        self.rollout_controller.start()
        self.shadow.start()
        self.content_sampler.start()
        self.job_runner.start()

    async def stop(self) -> None:
        await self.job_runner.stop()
        await self.shadow.stop()
        await self.content_sampler.stop()
        await self.rollout_controller.stop()
        await self.live_policy.stop()
        await self.pipeline.stop()
        for runner in self.runners.values():
            await runner.stop()
        await self.partition_maintenance.stop()
        await self.log.stop()
        await self.spool.close()
        await self.shipper.drain(self._log_drain_seconds)
        await self.cache.stop()
        await self.cache_secret.stop()
        await self.key_use.stop()
        await self.keys.stop()
        await self.redis.aclose()
        await self.client_engine.dispose()
        await self.own_engine.dispose()

    async def _learn_policy(self) -> None:
        """Read the policy and what the runners hold, so that the first request is assigned by both.

        What fails is tried again, and logged, in the background.
        """
        with suppress(Exception):
            await self.live_policy.refresh()
        await asyncio.gather(
            *(runner.refresh() for runner in self.runners.values()), return_exceptions=True
        )

    async def _ask_challenger(self, prediction: Prediction) -> None:
        await self.pipeline.shadow(prediction)

    def _set_desired_models(self, policy: RolloutPolicy, as_of: float) -> None:
        for version, runner in self.runners.items():
            runner.set_desired(policy.desired_model(version), as_of)

    async def _model_problem(self, version: Version, tag: str) -> str | None:
        # A runner on another machine has a store of its own.
        return await asyncio.to_thread(load_problem, tag) if version in self._local else None

    def _revisions(self) -> dict[Version, str]:
        """The revisions of the runners that have described themselves."""
        return {
            version: runner.last_description.revision
            for version, runner in self.runners.items()
            if runner.last_description is not None
        }

    @property
    def ready(self) -> bool:
        """Whether predictions can be served."""
        return self.log_writable and all(runner.ready for runner in self.runners.values())

    @property
    def full(self) -> bool:
        """Whether a model has so many texts waiting that it refuses more."""
        return any(runner.is_full for runner in self.runners.values())

    def has_room(self, caller: str, under_way: int) -> bool:
        """Whether the models would take one more small request, with so many under way."""
        return have_room(self.runners.values(), caller, under_way)

    @property
    def log_writable(self) -> bool:
        return not self.log.refusing

    async def log_rejects(self) -> bool:
        return await self._log_rejects.get_within(DISK_SECONDS, otherwise=False)

    async def log_overdue(self) -> bool:
        # What is on a disk that does not answer cannot be sent either.
        return await self._log_overdue.get_within(DISK_SECONDS, otherwise=True)

    async def database_connected(self) -> bool:
        return await connected(self.own_engine)

    async def redis_connected(self) -> bool:
        return await self.cache.connected()

    async def cache_size(self) -> int | None:
        return await self.cache.size()


def configured_policy(settings: Settings) -> PolicyRecord:
    """The policy that the settings give: active until an operator sets another."""
    policy = RolloutPolicy(
        champion=settings.default_version,
        ab_weights=Weights.with_share(round(settings.ab_v2_percent, 2), "v2"),
        salt=settings.ab_salt,
    )
    return PolicyRecord(0, datetime.now(UTC), "settings", "set", "as configured", policy)


def adapter_apis(pipeline: PredictionPipeline) -> dict[str, PostApi]:
    """The POST endpoints of other systems' protocols, by path."""
    apis = (
        *infer_apis(pipeline.predict),
        *classification_apis(pipeline.predict),
        invocations_api(pipeline.predict),
    )
    return {path: api for api in apis for path in api.route.paths}


def read_app(
    container: Container,
    post_apis: Collection[PostApi],
    version: str,
    ready: Callable[[], bool],
) -> FastAPI:
    """The app of the GET endpoints, with the documentation of the POSTs.

    `ready`: whether the process takes predictions.
    """

    # As bytes: to write it takes 6 ms.
    def openapi() -> bytes:
        return bytes(JSONResponse(openapi_document(post_apis, app.routes, version=version)).body)

    app = create_read_app(
        operations_router(lambda: container, openapi),
        analytics_router(lambda: container.reader, lambda: container.review_draws),
        rollout_router(lambda: container),
        keys_router(lambda: container),
        jobs_router(lambda: container),
        open_inference_router(lambda: container, ready),
        ping_router(ready),
    )
    add_dashboard(app)
    return app
