"""Rate limits on a real Redis, and without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from core.errors import RateLimited
from core.key_ring import KeyRing
from core.rate_limits import LimitName
from core.redis import MAX_CONNECTIONS, connect
from loadtest.ports import free_port
from web.access import AccessMiddleware
from web.problems import ProblemMiddleware
from web.rate_limiter import LimitState, RateLimiter
from web.request import RequestMiddleware

LIMITS: dict[LimitName, str] = {"predict": "3/minute", "batch": "1/minute", "analytics": "off"}


def counter(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def nobody() -> AsyncIterator[Redis]:
    """A client of a Redis that is not there."""
    client = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    yield client
    await client.aclose()


@pytest.mark.parametrize("is_shared", [True, False])
async def test_clock_that_is_set_back_locks_no_client_out(
    redis: Redis, nobody: Redis, monkeypatch: pytest.MonkeyPatch, *, is_shared: bool
) -> None:
    limiter, now = RateLimiter(redis if is_shared else nobody, LIMITS), time.time
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: now() + 3_600)
        for _ in range(3):
            await limiter.check("predict", "ann")
    for _ in range(3):
        await limiter.check("predict", "ann")
    with pytest.raises(RateLimited):
        await limiter.check("predict", "ann")


async def test_limits_hold_over_processes_by_client_and_by_name(redis: Redis) -> None:
    one, other = RateLimiter(redis, LIMITS), RateLimiter(redis, LIMITS)
    for process in (one, other, one):
        await process.check("predict", "ann")
    refused = counter("rate_limited_requests_total", limit="predict")
    with pytest.raises(RateLimited) as caught:
        await other.check("predict", "ann")
    assert counter("rate_limited_requests_total", limit="predict") - refused == 1
    await other.check("predict", "ben")
    await other.check("batch", "ann")
    state = await one.state("predict", "ann")
    assert state is not None
    assert (state.limit, state.remaining) == (3, 0)
    assert 0 < state.reset_in_seconds <= 60
    assert state.reset_in_seconds <= caught.value.retry_after_seconds <= 61


async def test_requests_at_once_get_exactly_the_limit(redis: Redis) -> None:
    processes = [RateLimiter(redis, {"predict": "10/minute"}) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(processes[number % 2].check("predict", "ann") for number in range(40)),
        return_exceptions=True,
    )
    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert [type(one) for one in refused] == [RateLimited] * 30


@pytest.mark.usefixtures("redis")
async def test_thousands_of_requests_at_once_get_exactly_the_limit(redis_server: str) -> None:
    redis = connect(redis_server, timeout_seconds=30)
    limiter = RateLimiter(redis, {"predict": "10/minute"})
    errors = counter("redis_errors_total", operation="rate_limit")
    outcomes = await asyncio.gather(
        *(limiter.check("predict", "ann") for _ in range(4_000)), return_exceptions=True
    )
    await redis.aclose()
    assert sum(isinstance(each, RateLimited) for each in outcomes) == 4_000 - 10
    assert counter("redis_errors_total", operation="rate_limit") == errors


@pytest.mark.usefixtures("redis")
async def test_connections_that_are_all_in_use_are_no_outage(
    redis_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis = connect(redis_server, timeout_seconds=5, wait_seconds=0.05)
    limiter = RateLimiter(redis, {"predict": "10/minute"})
    pool: Any = redis.connection_pool
    held = [await pool.get_connection() for _ in range(MAX_CONNECTIONS)]
    for _ in range(5):
        await limiter.check("predict", "ann")
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("Redis has no time for EVALSHA, and the service goes on without it: ")
    for connection in held:
        await pool.release(connection)
    state = await limiter.check("predict", "ben")
    elsewhere = await RateLimiter(redis, {"predict": "10/minute"}).check("predict", "ben")
    await redis.aclose()
    assert state is not None
    assert elsewhere is not None
    assert (state.remaining, elsewhere.remaining) == (9, 8)


async def test_request_that_others_were_faster_than_is_refused(redis: Redis) -> None:
    """As when many wait at the end of a window: each sees room, and few find it."""

    left = iter([1, 0, 0])

    class Late(RateLimiter):
        async def _hit(self, *_asked: object) -> bool:
            return False

        async def _state(self, *_asked: object) -> LimitState:
            return LimitState(1, 60, next(left), time.time() + 60)

    with pytest.raises(RateLimited):
        await Late(redis, {"predict": "1/minute"}).check("predict", "ann")


async def test_a_batch_counts_by_its_texts(redis: Redis) -> None:
    one, other = (RateLimiter(redis, {"batch": "2/minute"}, max_batch_texts=100) for _ in range(2))
    state = await one.check("batch", "ann", 100)
    assert state is not None
    assert (state.limit, state.window_seconds, state.remaining) == (200, 60, 100)
    for _ in range(99):
        await other.check("batch", "ann")
    with pytest.raises(RateLimited, match="More than 200 texts in 60 s"):
        await one.check("batch", "ann", 2)
    await one.check("batch", "ann", 1)
    with pytest.raises(RateLimited):
        await one.check("batch", "ann", 1)


async def test_what_is_taken_without_a_refusal_is_at_most_what_is_left(redis: Redis) -> None:
    limiter = RateLimiter(redis, LIMITS)
    await limiter.check("predict", "ann")
    left = []
    for cost in (1, 1_000, 1_000):
        state = await limiter.take("predict", "ann", cost)
        assert state is not None
        left.append(state.remaining)
    assert left == [1, 0, 0]
    with pytest.raises(RateLimited):
        await limiter.check("predict", "ann")
    other = await limiter.check("predict", "bob")
    assert other is not None
    assert other.remaining == 2


async def test_what_is_left_is_told_without_asking_each_time(redis: Redis) -> None:
    limiter, elsewhere = RateLimiter(redis, LIMITS), RateLimiter(redis, LIMITS)
    left = []
    for _ in range(3):
        state = await limiter.check("predict", "ann")
        assert state is not None
        left.append(state.remaining)
    assert left == [2, 1, 0]
    with pytest.raises(RateLimited):
        await elsewhere.check("predict", "ann")


async def test_asking_for_the_state_counts_nothing(redis: Redis) -> None:
    limiter = RateLimiter(redis, LIMITS)
    for _ in range(10):
        state = await limiter.state("predict", "ann")
        assert state is not None
        assert (state.limit, state.remaining) == (3, 3)


async def test_who_comes_back_when_told_is_let_in(redis: Redis) -> None:
    limiter = RateLimiter(redis, {"predict": "2/second"})
    await limiter.check("predict", "ann")
    await limiter.check("predict", "ann")
    with pytest.raises(RateLimited, match="More than 2 requests in 1 s") as caught:
        await limiter.check("predict", "ann")
    await asyncio.sleep(caught.value.retry_after_seconds)
    await limiter.check("predict", "ann")
    state = await limiter.state("predict", "ann")
    assert state is not None
    assert state.remaining == 1


async def test_a_limit_that_is_off_never_refuses(redis: Redis) -> None:
    free = RateLimiter(redis, LIMITS)
    for _ in range(50):
        await free.check("analytics", "ann")
    assert await free.state("analytics", "ann") is None


async def test_without_redis_the_limits_hold_in_the_process(nobody: Redis) -> None:
    alone = RateLimiter(nobody, LIMITS)
    failed = counter("redis_errors_total", operation="rate_limit")
    for _ in range(3):
        await alone.check("predict", "ann")
    assert (
        counter("redis_errors_total", operation="rate_limit") - failed == 4
    )  # and once asked what is left
    with pytest.raises(RateLimited):
        await alone.check("predict", "ann")
    state = await alone.state("predict", "ann")
    assert state is not None
    assert state.remaining == 0


@pytest.mark.parametrize("redis_is_up", [True, False])
async def test_the_answer_past_the_limit_is_a_problem_with_retry_after(
    redis: Redis, nobody: Redis, redis_is_up: bool
) -> None:
    limiter = RateLimiter(redis if redis_is_up else nobody, LIMITS)
    reached: list[str] = []

    async def endpoint(request: object) -> PlainTextResponse:
        reached.append("batch")
        return PlainTextResponse("ok")

    routes = [Route(path, endpoint, methods=["POST"]) for path in ("/predict/batch", "/free")]
    limited = AccessMiddleware(Starlette(routes=routes), KeyRing(), lambda: limiter)
    app = RequestMiddleware(ProblemMiddleware(limited))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        replies = [await http.post("/predict/batch") for _ in range(3)]
        assert (await http.post("/free")).status_code == 200
    assert [reply.status_code for reply in replies] == [200, 429, 429]
    assert len(reached) == 2
    assert 1 <= int(replies[1].headers["retry-after"]) <= 61
    assert [reply.headers["ratelimit"].partition(";t")[0] for reply in replies] == [
        '"batch";r=0'
    ] * 3
    assert replies[1].headers["ratelimit-policy"] == '"batch";q=1;w=60'
    assert replies[1].headers["content-type"] == "application/problem+json"
    assert replies[1].json()["instance"] == "/predict/batch"


async def test_requests_that_share_a_round_trip_have_their_own_answers(redis: Redis) -> None:
    limiter = RateLimiter(redis, {"predict": "10/minute"})
    await limiter.check("predict", "spoilt")
    [key] = await redis.keys("*spoilt*")
    await redis.set(key, "not a window")
    clients = [client for client in ("ann", "ben", "spoilt", "cyd") for _ in range(15)]
    outcomes = await asyncio.gather(
        *(limiter.check("predict", client) for client in clients), return_exceptions=True
    )
    for client in set(clients):
        own = [each for each, name in zip(outcomes, clients, strict=True) if name == client]
        refused = [each for each in own if isinstance(each, RateLimited)]
        assert (len(own), len(refused)) == (15, 5), client


async def test_redis_that_forgets_its_scripts_still_counts(redis: Redis) -> None:
    limiter = RateLimiter(redis, {"predict": "10/minute"})
    await limiter.check("predict", "ann")
    await redis.script_flush()
    outcomes = await asyncio.gather(
        *(limiter.check("predict", "ann") for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(each, RateLimited) for each in outcomes) == 11
