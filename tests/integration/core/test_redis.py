"""Cache and rate limits on a Redis that refuses commands, or that became a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from cache.keys import CacheKeys
from cache.prediction_cache import PredictionCache
from core.errors import RateLimited
from core.redis import FAILURES, RedisCircuit, connect
from loadtest.ports import free_port
from serving.embedded.redis import embedded_redis
from serving.redis_check import redis_problem
from tests.served.cable import Cable
from tests.unit.fakes import classification
from web.rate_limiter import KEY_PREFIX, RateLimiter

cache_key = CacheKeys(bytes(32)).key
KEYS = [cache_key("v1", "r1", text) for text in ("one", "two")]
ANSWERS = {key: classification(key) for key in KEYS}
LIMITS = {"predict": "3/minute"}


def errors(operation: str) -> float:
    return REGISTRY.get_sample_value("redis_errors_total", {"operation": operation}) or 0.0


class Users:
    """Those of one Redis: its cache and its rate limits, with the circuit that they share."""

    def __init__(self, client: Redis) -> None:
        circuit = RedisCircuit()
        self.client = client
        self.cache = PredictionCache(client, ttl_seconds=100, circuit=circuit)
        self.limiter = RateLimiter(client, LIMITS, circuit=circuit)  # type: ignore[arg-type]

    async def caches(self) -> bool:
        """Whether what the cache stores is found again."""
        self.cache.store(ANSWERS)
        await self.cache.stop()
        return await self.cache.lookup(KEYS) == list(ANSWERS.values())

    async def limits(self, client: str) -> None:
        """Three requests are admitted, and no fourth."""
        for _ in range(3):
            await self.limiter.check("predict", client)
        with pytest.raises(RateLimited):
            await self.limiter.check("predict", client)


@asynccontextmanager
async def users_of(url: str) -> AsyncIterator[Users]:
    client = connect(url, timeout_seconds=5)
    yield Users(client)
    await client.aclose()


async def limit_key(redis: Redis) -> bytes:
    [key] = [key async for key in redis.scan_iter(f"{KEY_PREFIX}*")]
    return bytes(key)


@pytest.mark.parametrize("values", [None, ["x"], ["nan"], ["1e300"], ["1e400"]])
async def test_limit_key_that_is_no_window_is_replaced_and_the_cache_goes_on(
    redis: Redis, redis_server: str, values: list[str] | None
) -> None:
    async with users_of(redis_server) as users:
        await users.limiter.check("predict", "ann")
        key = await limit_key(redis)
        for _ in range(2 * FAILURES):
            await redis.delete(key)
            if values is None:
                await redis.set(key, "a string")
            else:
                await redis.rpush(key, *values * 3)
            state = await users.limiter.state("predict", "ann")
            assert state is not None
            assert state.remaining == 3
            assert state.reset_in_seconds <= 60
        assert await users.caches()
        await users.limits("ann")
        assert await redis.type(key) == b"list"


async def test_user_without_scripts_is_limited_in_the_process_and_the_cache_goes_on(
    redis: Redis, redis_server: str
) -> None:
    await redis.acl_setuser(
        "plain", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-@scripting"]
    )
    before = errors("lookup") + errors("store")
    async with users_of(redis_server.replace("unix://", "unix://plain:secret@")) as users:
        for number in range(FAILURES):
            await users.limits(f"client {number}")
            assert await users.caches()
    assert errors("lookup") + errors("store") == before
    await redis.acl_deluser("plain")


async def test_user_who_may_not_read_gets_misses_and_is_limited(
    redis: Redis, redis_server: str
) -> None:
    await redis.acl_setuser(
        "blind",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        commands=["+@all", "-mget", "-ping"],
    )
    async with users_of(redis_server.replace("unix://", "unix://blind:secret@")) as users:
        for _ in range(2 * FAILURES):
            assert await users.cache.lookup(KEYS) == [None, None]
        # Redis answers, if only that it refuses.
        assert await users.cache.connected()
        await users.limits("ann")
        assert await limit_key(redis)
    await redis.acl_deluser("blind")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with (
        embedded_redis(tmp_path / "first", max_memory="64mb") as first,
        embedded_redis(tmp_path / "second", max_memory="64mb") as second,
    ):
        yield first, second


async def test_connections_to_a_redis_that_became_a_replica_are_replaced_at_once(
    servers: tuple[str, str],
) -> None:
    old, new = (Path(urlsplit(url).path) for url in servers)
    cable, port = Cable(old), free_port()
    with cable.listening(port):
        async with users_of(f"redis://127.0.0.1:{port}/0") as users:
            assert await users.caches()
            await users.limits("ann")
            # As after a failover: the address leads to the new primary, and the old one is a
            # replica, which keeps its connections.
            async with Redis.from_url(servers[0]) as former:
                await former.replicaof("127.0.0.1", free_port())
            cable.target = new
            before = errors("store") + errors("lookup") + errors("rate_limit")
            assert await users.caches()
            await users.limits("ann")
            assert errors("store") + errors("lookup") + errors("rate_limit") == before
            async with Redis.from_url(servers[1]) as primary:
                assert await primary.dbsize() == len(KEYS) + 1


@pytest.mark.parametrize("lacking", ["hello", "hello -client", "hello -client -info -command"])
async def test_redis_without_hello_caches_and_limits(
    redis: Redis, redis_server: str, lacking: str
) -> None:
    await redis.acl_setuser(
        "old",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        commands=["+@all", *f"-{lacking}".split()],
    )
    before = errors("lookup") + errors("store") + errors("rate_limit")
    async with users_of(redis_server.replace("unix://", "unix://old:secret@")) as users:
        assert await users.caches()
        assert await users.cache.size() == len(KEYS)
        await users.limits("ann")
    assert errors("lookup") + errors("store") + errors("rate_limit") == before
    await redis.acl_deluser("old")


@asynccontextmanager
async def liar(reply: bytes, *, pause_seconds: float = 0.0) -> AsyncIterator[str]:
    """A server that answers whatever it gets with `reply`, again and again if it pauses."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            while await reader.read(1 << 16):
                writer.write(reply)
                while pause_seconds and not writer.is_closing():
                    await asyncio.sleep(pause_seconds)
                    writer.write(reply)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


LIES = [
    b"$abc\r\n",
    b"$-5\r\n",
    b"+\xff\xfe\r\n",
    b":5\r\n",
    b"$-1\r\n",
    b"+a\r\n",
    b"$1\r\n5\r\n",
    b"*0\r\n",
    b"*1\r\n:5\r\n",
    b"*2\r\n:" + 400 * b"9" + b"\r\n:1\r\n",
    b"*1\r\n" * 20_000,
    b"+" + 200_000 * b"a",
]


@pytest.mark.parametrize("reply", LIES)
async def test_server_that_speaks_no_redis_costs_hits_and_no_error(reply: bytes) -> None:
    async with liar(reply) as url:
        client = connect(url, timeout_seconds=0.5)
        cache = PredictionCache(client, ttl_seconds=100)
        assert await cache.lookup([cache_key("v1", "r1", "one")]) == [None]
        size = await cache.size()
        assert size is None or size >= 0
        await client.aclose()


@pytest.mark.parametrize("reply", LIES)
async def test_server_that_speaks_no_redis_refuses_nobody_wrongly(reply: bytes) -> None:
    async with liar(reply) as url, users_of(url) as users:
        for client in ("ann", "ben"):
            await users.limiter.check("predict", client)
            state = await users.limiter.state("predict", client)
            assert state is not None
            assert 0 <= state.remaining <= 3


async def test_server_that_answers_nothing_leaves_the_limits_to_the_process() -> None:
    async with liar(b"$-1\r\n") as url, users_of(url) as users:
        await users.limits("ann")


@pytest.mark.parametrize(("reply", "pause_seconds"), [*((lie, 0.0) for lie in LIES), (b"$", 0.05)])
async def test_check_of_a_server_that_speaks_no_redis_ends_with_one_line(
    reply: bytes, pause_seconds: float
) -> None:
    async with liar(reply, pause_seconds=pause_seconds) as url:
        problem = await asyncio.to_thread(redis_problem, url, timeout_seconds=0.5)
    assert problem is not None
    assert problem.startswith("Redis at REDIS_URL cannot be reached: ")
    assert "\n" not in problem
    assert len(problem) < 500
