"""The GET endpoints for operators: health, cache and rate-limit state, documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse

from core import metrics
from core.rate_limits import LimitName
from core.request_context import context_of
from core.shared_rendering import SharedRendering, SingleRendering
from core.types import RunnerDescription, SinkName, Version
from web.rate_limiter import RateLimiter
from web.read_api.app import redirect_without_slash
from web.schemas.operations import (
    CacheStats,
    Health,
    LogStats,
    RateLimitStatus,
    RolloutHealth,
    RunnerHealth,
    ServedModel,
    ServedModels,
    SinkStats,
)


class WatchedRunner(Protocol):
    @property
    def ready(self) -> bool: ...

    @property
    def last_description(self) -> RunnerDescription | None: ...

    @property
    def problem(self) -> str | None: ...


class WatchedPolicy(Protocol):
    @property
    def version(self) -> int: ...

    @property
    def is_frozen(self) -> bool: ...


class Probes(Protocol):
    """The parts of a running service that these endpoints report on."""

    @property
    def runners(self) -> Mapping[Version, WatchedRunner]: ...

    @property
    def live_policy(self) -> WatchedPolicy: ...

    limiter: RateLimiter
    sinks: tuple[SinkName, ...]

    @property
    def log_writable(self) -> bool: ...

    async def log_rejects(self) -> bool: ...

    async def log_overdue(self) -> bool: ...

    async def database_connected(self) -> bool: ...

    async def redis_connected(self) -> bool: ...

    async def cache_size(self) -> int | None: ...


def operations_router(probes: Callable[[], Probes], openapi: Callable[[], bytes]) -> APIRouter:
    router = APIRouter(tags=["operations"])
    # Nobody needs a key for it, and the first time it takes half a second.
    document = SingleRendering(openapi)
    # To ask PostgreSQL and Redis, or to read the files of all metrics, costs far more than to ask
    # for it.
    reports = SharedRendering(lambda: health_report(probes()))
    sizes = SharedRendering(lambda: probes().cache_size())
    counts = SharedRendering.in_thread(lambda: _counts(probes().sinks))

    @router.get("/health", responses={503: {"model": Health, "description": "No model answers"}})
    async def health(response: Response) -> Health:
        """Health. 503 only if no prediction can be served; PostgreSQL or Redis may be down."""
        report = await reports.get()
        if report.status == "unavailable":
            response.status_code = 503
        return report

    @router.get("/models")
    async def models() -> ServedModels:
        """The model of each version: its labels, window, revision, tag, engine and licence."""
        runners = probes().runners
        return ServedModels(
            models={version: _served_model(runner) for version, runner in runners.items()}
        )

    @router.get("/cache/stats")
    async def cache_stats() -> CacheStats:
        """Hits and misses since the service started, over all its workers."""
        hits, misses, _ = await counts.get()
        lookups = hits + misses
        return CacheStats(
            hits=int(hits),
            misses=int(misses),
            hit_rate=100 * hits / lookups if lookups else 0.0,
            cache_size=await sizes.get(),
        )

    @router.get("/log/stats")
    async def log_stats() -> LogStats:
        """Predictions recorded and stored since the start, and bytes that wait on disk."""
        _, _, log = await counts.get()
        return log

    @router.get("/rate-limit/status")
    async def rate_limit_status(request: Request, limit: LimitName = "predict") -> RateLimitStatus:
        """The state of a limit for this caller. This request is not counted."""
        context = context_of(request.scope)
        state = await probes().limiter.state(limit, context.caller, context.limits)
        fields = {name: getattr(state, name, None) for name in RateLimitStatus.model_fields}
        return RateLimitStatus(**fields)

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(await document.get(), media_type="application/json")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # BentoML serves these files itself, so the page works without the internet.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Sentiment API",
            swagger_js_url="static_content/swagger-ui-bundle.js",
            swagger_css_url="static_content/swagger-ui.css",
            swagger_favicon_url="static_content/favicon-light-32x32.png",
            # The schemas are folded; they would be most of the page.
            swagger_ui_parameters={"defaultModelsExpandDepth": 0},
        )

    @router.get("/docs/", include_in_schema=False)
    async def docs_with_slash(request: Request) -> RedirectResponse:
        return redirect_without_slash(request)

    return router


def _counts(sinks: Sequence[SinkName]) -> tuple[float, float, LogStats]:
    """The hits and misses of the cache, and the state of the log."""
    hits, misses, *counts, oldest_seconds = metrics.totals(
        "cache_hits_total",
        "cache_misses_total",
        *(
            f"prediction_log_{name}"
            for name in (
                *("recorded_total", "stored_total", "repeated_total"),
                *("dropped_total", "rejected_total"),
                *("spool_bytes", "rejected_bytes", "max_bytes", "spool_age_seconds"),
            )
        ),
    )
    recorded, stored, repeated, dropped, rejected, *sizes = map(int, counts)
    waiting_bytes, rejected_bytes, max_bytes = sizes
    log = LogStats(
        # A prediction that is stored has been recorded: by an earlier start, or by a process that
        # was killed before it could count it.
        recorded=max(recorded, stored),
        stored=stored,
        repeated=repeated,
        dropped=dropped,
        rejected=rejected,
        waiting_bytes=waiting_bytes,
        rejected_bytes=rejected_bytes,
        max_bytes=max_bytes,
        oldest_seconds=oldest_seconds,
        sinks=_sink_stats(sinks) if sinks else {},
    )
    return hits, misses, log


def _sink_stats(sinks: Sequence[SinkName]) -> dict[SinkName, SinkStats]:
    names = (
        "delivered_total",
        "lost_total",
        "gone_total",
        "waiting_predictions",
        "overdue_seconds",
    )
    delivered, lost, gone, waiting, overdue = metrics.by_label(
        "sink", *(f"prediction_log_sink_{name}" for name in names)
    )
    return {
        sink: SinkStats(
            delivered=int(delivered.get(sink, 0)),
            waiting=int(waiting.get(sink, 0)),
            overdue_seconds=overdue.get(sink, 0.0),
            lost=int(lost.get(sink, 0)),
            gone=int(gone.get(sink, 0)),
        )
        for sink in sinks
    }


async def health_report(probes: Probes) -> Health:
    database_connected, redis_connected, log_rejects, log_overdue = await asyncio.gather(
        probes.database_connected(),
        probes.redis_connected(),
        probes.log_rejects(),
        probes.log_overdue(),
    )
    ready = [runner.ready for runner in probes.runners.values()]
    if not any(ready) or not probes.log_writable:
        status = "unavailable"
    elif (
        all(ready)
        and database_connected
        and redis_connected
        and not log_rejects
        and not log_overdue
        and not probes.live_policy.is_frozen
        and not _is_refused(probes)
    ):
        status = "ok"
    else:
        status = "degraded"
    return Health(
        status=status,
        model_loaded=all(ready),
        log_writable=probes.log_writable,
        log_rejects=log_rejects,
        log_overdue=log_overdue,
        database_connected=database_connected,
        redis_connected=redis_connected,
        versions={version: _runner_health(runner) for version, runner in probes.runners.items()},
        rollout=RolloutHealth(
            policy_version=probes.live_policy.version, frozen=probes.live_policy.is_frozen
        ),
    )


def _is_refused(probes: Probes) -> bool:
    """Whether a runner holds another model than it should."""
    descriptions = (runner.last_description for runner in probes.runners.values())
    return any(held is not None and held.load_error is not None for held in descriptions)


def _served_model(runner: WatchedRunner) -> ServedModel:
    held = runner.last_description
    names = [name for name in ServedModel.model_fields if name != "ready"]
    facts = {name: getattr(held, name, None) or None for name in names}
    return ServedModel(ready=runner.ready, **facts)


def _runner_health(runner: WatchedRunner) -> RunnerHealth:
    description = runner.last_description
    if description is None:
        return RunnerHealth(ready=False, revision=None, engine=None, load_error=runner.problem)
    loading = description.loading
    return RunnerHealth(
        ready=runner.ready,
        revision=description.revision,
        engine=description.engine,
        tag=description.tag or None,
        loading=(loading.tag or "the configured model") if loading else None,
        load_error=runner.problem or description.load_error,
        observed_generation=description.observed_generation if description.converged else None,
    )
