"""The prediction cache and the rate limits on a real Redis, and without one."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from cache.keys import cache_key
from cache.prediction_cache import PredictionCache
from errors import RateLimited
from redis_connection import connect
from tests.serving import free_port
from tests.unit.fakes import classification
from web.rate_limit import RateLimiter
from web.routes import LimitName

KEYS = [cache_key("v1", "r1", text) for text in ("one", "two", "three")]
ANSWERS = {key: classification(key) for key in KEYS}
LIMITS: dict[LimitName, str] = {"predict": "3/minute", "batch": "1/minute", "analytics": "off"}


async def calls(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def counter(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def cache(redis: Redis) -> PredictionCache:
    return PredictionCache(redis, ttl_seconds=100)


async def test_what_was_stored_is_found_in_one_round_trip(
    cache: PredictionCache, redis: Redis
) -> None:
    await cache.store({key: ANSWERS[key] for key in KEYS[:2]})
    before = await calls(redis, "mget")
    hits, misses = counter("cache_hits_total"), counter("cache_misses_total")
    assert await cache.lookup(KEYS) == [ANSWERS[KEYS[0]], ANSWERS[KEYS[1]], None]
    assert await calls(redis, "mget") - before == 1
    assert counter("cache_hits_total") - hits == 2
    assert counter("cache_misses_total") - misses == 1
    assert all([0 < await redis.ttl(key) <= 100 for key in KEYS[:2]])
    assert await cache.size() == 2


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"[]", b"{}", b'{"scores": 1}', b"\xff"])
async def test_what_cannot_be_read_is_a_miss(
    cache: PredictionCache, redis: Redis, garbage: bytes
) -> None:
    await redis.set(KEYS[0], garbage)
    assert await cache.lookup(KEYS[:1]) == [None]


async def test_other_keys_are_not_counted(cache: PredictionCache, redis: Redis) -> None:
    await redis.set("somebody-else", b"1")
    await cache.store(ANSWERS)
    assert await cache.size() == 3


async def test_redis_outage_still_answers_and_is_counted() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    cache = PredictionCache(client, ttl_seconds=100)
    failed = {
        operation: counter("redis_errors_total", operation=operation)
        for operation in ("lookup", "store", "size", "ping")
    }
    assert await cache.lookup(KEYS) == [None] * 3
    await cache.store(ANSWERS)
    assert await cache.size() is None
    assert await cache.connected() is False
    for operation, before in failed.items():
        assert counter("redis_errors_total", operation=operation) - before == 1
    await client.aclose()


async def test_limits_hold_over_processes_by_client_and_by_name(redis: Redis) -> None:
    one, other = RateLimiter(redis, LIMITS), RateLimiter(redis, LIMITS)
    for process in (one, other, one):
        await process.check("predict", "ann")
    refused = counter("rate_limited_requests_total", limit="predict")
    with pytest.raises(RateLimited) as caught:
        await other.check("predict", "ann")
    assert 1 <= caught.value.retry_after_seconds <= 61
    assert counter("rate_limited_requests_total", limit="predict") - refused == 1
    await other.check("predict", "ben")
    await other.check("batch", "ann")
    state = await one.state("predict", "ann")
    assert state is not None
    assert (state.limit, state.remaining) == (3, 0)
    assert 0 < state.reset_in_seconds <= 60


async def test_a_limit_that_is_off_never_refuses(redis: Redis) -> None:
    free = RateLimiter(redis, LIMITS)
    for _ in range(50):
        await free.check("analytics", "ann")
    assert await free.state("analytics", "ann") is None


async def test_without_redis_the_limits_hold_in_the_process() -> None:
    nobody = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    alone = RateLimiter(nobody, LIMITS)
    for _ in range(3):
        await alone.check("predict", "ann")
    with pytest.raises(RateLimited):
        await alone.check("predict", "ann")
    state = await alone.state("predict", "ann")
    assert state is not None
    assert state.remaining == 0
    await nobody.aclose()
