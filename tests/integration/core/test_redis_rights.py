"""The rights that the runbook tells an operator to give the service's user of Redis suffice."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from analytics.privacy.selection import Selection, Selector
from cache.keys import CacheKeys
from cache.prediction_cache import PredictionCache
from core.api_keys import make_api_key
from core.errors import PredictionNotFound, RateLimited
from core.key_ring import KeyRing
from core.paths import ROOT
from core.redis import RedisCircuit, connect
from core.settings import Settings
from serving.cached_answers import forget_cached
from serving.redis_check import redis_problem
from tests.integration.web.keyed_service import Service
from tests.unit.fakes import classification
from web.key_use import NAME, KeyUse
from web.rate_limiter import RateLimiter

USER = "documented"
KEY = CacheKeys(bytes(32)).key("v1", "r1", "good")


def documented_commands() -> list[str]:
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    found = re.search(r"allow the user the commands\s+`([A-Z ]+)`", runbook)
    assert found is not None
    return found[1].split()


@pytest.fixture
async def url(redis: Redis, redis_server: str) -> AsyncIterator[str]:
    """Of a user who may do what the runbook says; nothing else was tried when the test ends."""
    await redis.acl_setuser(
        USER,
        enabled=True,
        passwords=["+secret"],
        keys=["sentiment*"],
        commands=[f"+{command}" for command in documented_commands()],
    )
    await redis.acl_log_reset()
    yield redis_server.replace("unix://", f"unix://{USER}:secret@")
    refused = {entry["object"] for entry in await redis.acl_log() if entry["username"] == USER}
    await redis.acl_deluser(USER)
    assert refused <= {"info", "client|setinfo"}  # asked for what it can do without


@pytest.fixture
async def limited(url: str) -> AsyncIterator[Redis]:
    client = connect(url, timeout_seconds=5.0)
    yield client
    await client.aclose()


async def test_cache_is_read_written_counted_and_cleared(limited: Redis, url: str) -> None:
    cache = PredictionCache(limited, ttl_seconds=100)
    answer = classification("good")
    cache.store({KEY: answer})
    await cache.stop()
    assert await cache.lookup([KEY]) == [answer]
    assert (await cache.size(), await cache.connected()) == (1, True)
    settings = Settings(redis_url=SecretStr(url))
    assert await forget_cached(settings, Selector("text", "good"), Selection()) == 0


async def test_limits_are_counted_for_all_processes(limited: Redis) -> None:
    limiter = RateLimiter(limited, {"predict": "2/minute"}, circuit=RedisCircuit())
    other = RateLimiter(limited, {"predict": "2/minute"}, circuit=RedisCircuit())
    for each in (limiter, other):
        await each.check("predict", "ann")
    with pytest.raises(RateLimited):
        await limiter.check("predict", "ann")


async def test_use_of_keys_is_shared_and_forgotten(redis: Redis, limited: Redis) -> None:
    sent, configured = make_api_key("ann", ["predict"])
    ring = KeyRing([configured], None)
    found = ring.find(sent)
    assert found is not None
    use = KeyUse(ring, limited, RedisCircuit())
    await use.write()
    await redis.hset(NAME, "gone", "1")
    assert found.id in await use.last_used()
    assert await redis.hkeys(NAME) == [found.id.encode()]


async def test_repeats_are_answered_and_failed_tries_begin_again(limited: Redis) -> None:
    service = Service(limited)
    async with service.client() as client:

        async def ask(key: str) -> httpx.Response:
            return await client.post(
                "/predict", json={"text": "good"}, headers={"Idempotency-Key": key}
            )

        results = [(await ask("one")).headers["idempotency-result"] for _ in range(2)]
        service.assigned = "v2"
        for key, error in (("two", PredictionNotFound("none")), ("three", RuntimeError())):
            service.errors = [error]
            assert (await ask(key)).status_code in (404, 500)
            results.append((await ask(key)).headers["idempotency-result"])
    assert results == ["stored", "replayed", "stored", "stored"]


def test_start_finds_no_problem(redis_server: str, url: str) -> None:
    assert redis_problem(url) is None
