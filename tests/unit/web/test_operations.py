"""What operators read: health by what is up, cache and limit state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx
import pytest
from prometheus_client import REGISTRY

from core import metrics
from core.key_ring import KeyRing
from core.redis import connect
from core.types import RunnerDescription, SinkName, Version
from loadtest.ports import free_port
from tests.unit.fakes import counter, runner_description
from web.access import AccessMiddleware
from web.problems import ProblemMiddleware
from web.rate_limiter import RateLimiter
from web.read_api.app import create_read_app
from web.read_api.operations import Probes, health_report, operations_router

LOADED = runner_description(revision="5f0c6f1d2a9b")


@dataclass
class FakeRunner:
    ready: bool
    last_description: RunnerDescription | None = LOADED
    problem: str | None = None


@dataclass
class FakePolicy:
    version: int = 3
    is_frozen: bool = False


@dataclass
class FakeProbes:
    """The parts of a service whose limits are kept in this process: its Redis never was."""

    v1: bool = True
    v2: bool = True
    database: bool = True
    redis: bool = True
    log_writable: bool = True
    log_stores_all: bool = True
    log_keeps_up: bool = True
    sinks: tuple[SinkName, ...] = field(init=False, default=())
    runners: Mapping[Version, FakeRunner] = field(init=False)
    limiter: RateLimiter = field(init=False)
    live_policy: FakePolicy = field(init=False, default_factory=FakePolicy)
    looked: int = field(init=False, default=0)  # into PostgreSQL or Redis

    def __post_init__(self) -> None:
        self.runners = {"v1": FakeRunner(self.v1), "v2": FakeRunner(self.v2)}
        nobody = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
        self.limiter = RateLimiter(
            nobody, {"predict": "3/minute", "batch": "1/minute", "analytics": "off"}
        )

    async def log_rejects(self) -> bool:
        return not self.log_stores_all

    async def log_overdue(self) -> bool:
        return not self.log_keeps_up

    async def database_connected(self) -> bool:
        self.looked += 1
        await asyncio.sleep(0.01)
        return self.database

    async def redis_connected(self) -> bool:
        return self.redis

    async def cache_size(self) -> int | None:
        self.looked += 1
        await asyncio.sleep(0.01)
        return 7 if self.redis else None


def client(probes: Probes) -> httpx.AsyncClient:
    app = create_read_app(operations_router(lambda: probes, lambda: b'{"openapi": "x"}'))
    access = AccessMiddleware(app, KeyRing(), lambda: probes.limiter, allow_anonymous=True)
    transport = httpx.ASGITransport(ProblemMiddleware(access), client=("10.0.0.9", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.mark.parametrize(
    ("down", "status", "code"),
    [
        ([], "ok", 200),
        (["database"], "degraded", 200),
        (["redis"], "degraded", 200),
        (["log_stores_all"], "degraded", 200),
        (["log_keeps_up"], "degraded", 200),
        (["log_writable"], "unavailable", 503),
        (["v1"], "degraded", 200),
        (["v2", "database", "redis"], "degraded", 200),
        (["v1", "v2"], "unavailable", 503),
    ],
)
async def test_health_is_503_only_when_nothing_can_be_predicted(
    down: list[str], status: str, code: int
) -> None:
    probes = FakeProbes(**dict.fromkeys(down, False))
    async with client(probes) as http:
        reply = await http.get("/health")
    assert reply.status_code == code
    body = reply.json()
    assert body["status"] == status
    assert body["model_loaded"] is (probes.v1 and probes.v2)
    assert body["log_rejects"] is not probes.log_stores_all
    assert body["log_overdue"] is not probes.log_keeps_up
    assert body["database_connected"] is probes.database
    assert body["redis_connected"] is probes.redis
    assert {version: one["ready"] for version, one in body["versions"].items()} == {
        "v1": probes.v1,
        "v2": probes.v2,
    }


async def test_policy_that_postgresql_does_not_confirm_is_degraded() -> None:
    probes = FakeProbes()
    probes.live_policy.is_frozen = True
    assert (await health_report(probes)).status == "degraded"


async def test_runner_that_holds_another_model_than_it_should_is_degraded() -> None:
    probes = FakeProbes()
    refused = replace(LOADED, load_error="m:9 is not in the BentoML model store")
    probes.runners = {"v1": FakeRunner(True), "v2": FakeRunner(True, refused)}
    report = await health_report(probes)
    assert (report.status, report.versions["v2"].load_error) == ("degraded", refused.load_error)


async def test_a_runner_that_never_answered_has_no_revision() -> None:
    probes = FakeProbes()
    probes.runners = {"v1": FakeRunner(True), "v2": FakeRunner(False, None)}
    report = await health_report(probes)
    assert (report.versions["v1"].revision, report.versions["v1"].engine) == (
        "5f0c6f1d2a9b",
        "openvino-bf16",
    )
    assert (report.versions["v2"].revision, report.versions["v2"].engine) == (None, None)


async def test_cache_stats_are_the_counters() -> None:
    metrics.cache_hits.inc(3)
    metrics.cache_misses.inc(1)
    hits = REGISTRY.get_sample_value("cache_hits_total") or 0.0
    misses = REGISTRY.get_sample_value("cache_misses_total") or 0.0
    async with client(FakeProbes()) as http:
        stats = (await http.get("/cache/stats")).json()
    assert (stats["hits"], stats["misses"], stats["cache_size"]) == (hits, misses, 7)
    assert stats["hit_rate"] == pytest.approx(100 * hits / (hits + misses))


@pytest.mark.parametrize("path", ["/health", "/cache/stats"])
async def test_many_who_ask_at_once_cost_as_much_as_two(path: str) -> None:
    probes = FakeProbes()
    async with client(probes) as http:
        replies = await asyncio.gather(*(http.get(path) for _ in range(50)))
    assert {reply.status_code for reply in replies} == {200}
    assert probes.looked <= 2


async def test_limit_status_is_that_of_the_caller() -> None:
    probes = FakeProbes()
    await probes.limiter.check("predict", "10.0.0.9")
    await probes.limiter.check("predict", "10.0.0.8")
    async with client(probes) as http:
        mine = (await http.get("/rate-limit/status")).json()
        off = (await http.get("/rate-limit/status", params={"limit": "analytics"})).json()
        unknown = await http.get("/rate-limit/status", params={"limit": "other"})
    assert (mine["limit"], mine["remaining"]) == (3, 2)
    assert 0 < mine["reset_in_seconds"] <= 60
    assert off == {"limit": None, "remaining": None, "reset_in_seconds": None}
    assert unknown.status_code == 422
    assert [fault["field"] for fault in unknown.json()["errors"]] == ["limit"]


async def test_the_document_and_its_page_are_served() -> None:
    async with client(FakeProbes()) as http:
        assert (await http.get("/openapi.json")).json() == {"openapi": "x"}
        page = await http.get("/docs")
    assert "openapi.json" in page.text
    assert "https://" not in page.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cache/stats?version=v1", 422),
        ("/rate-limit/status?_=1", 422),
        ("/rate-limit/status", 200),
        ("/health?_=1", 200),
    ],
)
async def test_parameter_that_a_route_does_not_have_is_refused(path: str, status: int) -> None:
    async with client(FakeProbes()) as caller:
        assert (await caller.get(path)).status_code == status


async def test_the_log_shows_what_each_configured_sink_has_and_lacks() -> None:
    before = counter("prediction_log_sink_lost_total", sink="parquet")
    metrics.sink_lost.labels("parquet").inc(3)
    metrics.sink_waiting.labels("parquet").set(12)
    metrics.sink_overdue.labels("parquet").set(1.5)
    probes = FakeProbes()
    probes.sinks = ("parquet",)
    async with client(probes) as http:
        sinks = (await http.get("/log/stats")).json()["sinks"]
    assert sinks.keys() == {"parquet"}
    told = sinks["parquet"]
    assert (told["waiting"], told["overdue_seconds"], told["lost"]) == (12, 1.5, before + 3)
    async with client(FakeProbes()) as http:
        assert (await http.get("/log/stats")).json()["sinks"] == {}
