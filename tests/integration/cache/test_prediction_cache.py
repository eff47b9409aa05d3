"""The prediction cache, with a real Redis and during an outage."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from cache.keys import PREFIX, CacheKeys
from cache.prediction_cache import (
    FLUSH_SECONDS,
    MAX_COUNTED_KEYS,
    MAX_VALUE_BYTES,
    MAX_WAITING_WRITES,
    PredictionCache,
)
from core.redis import connect
from core.types import Classification
from loadtest.ports import free_port
from tests.unit.fakes import classification

cache_key = CacheKeys(bytes(32)).key
KEYS = [cache_key("v1", "r1", text) for text in ("one", "two", "three")]
ANSWERS = {key: classification(key) for key in KEYS}


async def calls(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def counter(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def stored(cache: PredictionCache, classifications: Mapping[str, Classification]) -> None:
    """Store them, and wait until Redis has them."""
    cache.store(classifications)
    await cache.stop()


@pytest.fixture
def cache(redis: Redis) -> PredictionCache:
    return PredictionCache(redis, ttl_seconds=100)


async def test_stored_answers_are_found_in_one_round_trip(
    cache: PredictionCache, redis: Redis
) -> None:
    await stored(cache, {key: ANSWERS[key] for key in KEYS[:2]})
    before = await calls(redis, "mget")
    hits, misses = counter("cache_hits_total"), counter("cache_misses_total")
    assert await cache.lookup(KEYS) == [ANSWERS[KEYS[0]], ANSWERS[KEYS[1]], None]
    assert await calls(redis, "mget") - before == 1
    assert counter("cache_hits_total") - hits == 2
    assert counter("cache_misses_total") - misses == 1
    assert all([0 < await redis.ttl(key) <= 100 for key in KEYS[:2]])
    assert await cache.size() == 2


ANSWER = {
    "revision": "r1",
    "engine": "openvino-bf16",
    "scores": {"negative": 0.25, "positive": 0.75},
    "token_count": 3,
    "truncated": False,
}


def changed(**changes: object) -> bytes:
    """A valid value with changes; None removes a field."""
    fields = {name: value for name, value in (ANSWER | changes).items() if value is not None}
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "poison",
    [
        b"", b"garbage", b"[]", b"{}", b"\xff", b"[" * 4_000, changed(scores=None),
        changed(scores=1), changed(scores={}), changed(scores={"positive": "high"}),
        changed(scores={"positive": float("nan")}), changed(scores={"positive": float("inf")}),
        changed(scores={"positive": 1.5, "negative": -0.5}), changed(scores={"positive": 0.5}),
        changed(scores={"positive": 1, "angry": 0}), changed(token_count=-1),
        changed(token_count=2**31), changed(token_count=32_768), changed(token_count=3.5),
        changed(token_count=[3]), changed(truncated="no"), changed(truncated=1),
        changed(windows=0), changed(windows=-1), changed(windows=1_001), changed(windows="2"),
        changed(revision="r2"), changed(revision=7), changed(engine="x" * 1_001),
        changed(engine="openvino"), changed(engine="a\0b"), changed(engine="a\n"),
        changed(engine=None),
        changed(engine="openvino-bf16", padding="x" * MAX_VALUE_BYTES), b"x" * 10_000_000,
        changed(scores={"positive": 1}).replace(b"1", b"1e999"),
    ],
)  # fmt: skip
async def test_value_that_is_no_answer_is_a_miss_is_counted_and_is_deleted(
    cache: PredictionCache, redis: Redis, poison: bytes
) -> None:
    before = counter("cache_invalid_values_total")
    await redis.mset({KEYS[0]: poison, KEYS[1]: changed()})
    found = await cache.lookup(KEYS[:2])
    assert found[0] is None
    assert found[1] is not None
    assert found[1].scores == ANSWER["scores"]
    assert counter("cache_invalid_values_total") - before == 1
    await cache.stop()
    assert await redis.exists(*KEYS[:2]) == 1


@pytest.mark.parametrize(
    "scores",
    [{"neutral": 1.0}, {"positive": 1.0}, {"negative": 0.5, "positive": 0.5, "neutral": 0}],
)
async def test_answer_with_sentiments_that_the_model_lacks_is_a_miss_and_is_deleted(
    cache: PredictionCache, redis: Redis, scores: dict[str, float]
) -> None:
    await redis.mset({KEYS[0]: changed(scores=scores), KEYS[1]: changed()})
    found = await cache.lookup(KEYS[:2], ("negative", "positive"))
    assert [each is None for each in found] == [True, False]
    await cache.stop()
    assert await redis.exists(*KEYS[:2]) == 1


async def test_answer_replaces_a_value_that_is_none(cache: PredictionCache, redis: Redis) -> None:
    await redis.set(KEYS[0], changed(token_count=2**31))
    assert await cache.lookup(KEYS[:1]) == [None]
    await stored(cache, {KEYS[0]: ANSWERS[KEYS[0]]})
    assert await cache.lookup(KEYS[:1]) == [ANSWERS[KEYS[0]]]


async def test_size_does_not_count_foreign_keys(cache: PredictionCache, redis: Redis) -> None:
    await redis.set("somebody-else", b"1")
    await stored(cache, ANSWERS)
    assert await cache.size() == 3


async def test_redis_outage_still_answers_and_is_counted() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    cache = PredictionCache(client, ttl_seconds=100)
    failed = {
        operation: counter("redis_errors_total", operation=operation)
        for operation in ("lookup", "store", "size", "ping")
    }
    assert await cache.lookup(KEYS) == [None] * 3
    await stored(cache, ANSWERS)
    assert await cache.size() is None
    assert await cache.connected() is False
    for operation, before in failed.items():
        assert counter("redis_errors_total", operation=operation) - before == 1
    await client.aclose()


async def test_connection_closed_by_redis_costs_no_hit(redis: Redis, redis_server: str) -> None:
    client = connect(redis_server, timeout_seconds=5)
    cache = PredictionCache(client, ttl_seconds=100)
    await stored(cache, ANSWERS)
    # A restarting Redis does this, and one that closes idle connections.
    assert await redis.client_kill_filter(_type="normal", skipme=True) >= 1
    assert await cache.lookup(KEYS) == list(ANSWERS.values())
    await client.aclose()


async def test_batch_is_stored_in_one_round_trip(cache: PredictionCache, redis: Redis) -> None:
    many = {cache_key("v1", "r1", str(number)): classification("x") for number in range(20)}

    async def reads() -> int:
        return int((await redis.info("stats"))["total_reads_processed"])

    before = await reads()
    await stored(cache, many)
    # The INFO command itself is one of the two.
    assert await reads() - before == 2
    assert await cache.lookup(list(many)) == list(many.values())


async def test_scores_are_restored_to_the_last_bit_and_in_order(cache: PredictionCache) -> None:
    numbers = random.Random(5)
    answers = {}
    for key in (cache_key("v2", "r1", str(number)) for number in range(200)):
        positive = numbers.random() ** 20
        answers[key] = Classification(
            "r1",
            "openvino-bf16",
            {"positive": positive, "neutral": 0.0, "negative": 1 - positive},
            numbers.randrange(512),
            truncated=numbers.random() < 0.5,
        )
    await stored(cache, answers)
    found = await cache.lookup(list(answers))
    assert found == list(answers.values())
    assert {tuple(item.scores) for item in found if item} == {("positive", "neutral", "negative")}


async def test_stored_answer_expires_after_the_time_to_live(redis: Redis) -> None:
    await stored(PredictionCache(redis, ttl_seconds=86_400), ANSWERS)
    assert {await redis.ttl(key) for key in KEYS} <= {86_399, 86_400}


async def test_key_of_another_redis_type_is_a_miss(cache: PredictionCache, redis: Redis) -> None:
    await redis.rpush(KEYS[0], "x")
    assert await cache.lookup(KEYS[:1]) == [None]
    await stored(cache, {KEYS[0]: ANSWERS[KEYS[0]]})
    assert await cache.lookup(KEYS[:1]) == [ANSWERS[KEYS[0]]]


async def test_size_of_a_large_database_includes_foreign_keys(
    cache: PredictionCache, redis: Redis
) -> None:
    await redis.mset({f"{PREFIX}{number}": b"" for number in range(MAX_COUNTED_KEYS)})
    assert await cache.size() == MAX_COUNTED_KEYS
    await redis.set("somebody-else", b"1")
    assert await cache.size() == MAX_COUNTED_KEYS + 1


def with_local_cache(redis: Redis, entries: int, ttl_seconds: int = 100) -> PredictionCache:
    return PredictionCache(redis, ttl_seconds=ttl_seconds, local_entries=entries)


async def test_local_hit_needs_no_redis(redis: Redis) -> None:
    cache = with_local_cache(redis, 10)
    await stored(cache, {key: ANSWERS[key] for key in KEYS[:2]})
    before = await calls(redis, "mget")
    hits, misses = counter("cache_hits_total"), counter("cache_misses_total")
    assert await cache.lookup(KEYS[:2]) == [ANSWERS[key] for key in KEYS[:2]]
    assert await calls(redis, "mget") == before
    # Only local misses are looked up in Redis.
    await redis.delete(*KEYS[:2])
    assert await cache.lookup(KEYS) == [ANSWERS[KEYS[0]], ANSWERS[KEYS[1]], None]
    assert await calls(redis, "mget") - before == 1
    assert counter("cache_hits_total") - hits == 4
    assert counter("cache_misses_total") - misses == 1


async def test_answer_of_another_process_is_cached_locally_once_found(redis: Redis) -> None:
    await stored(PredictionCache(redis, ttl_seconds=100), ANSWERS)
    cache = with_local_cache(redis, 10)
    before = await calls(redis, "mget")
    for _ in range(3):
        assert await cache.lookup(KEYS) == list(ANSWERS.values())
    assert await calls(redis, "mget") - before == 1


async def test_miss_is_not_cached_locally(redis: Redis) -> None:
    cache = with_local_cache(redis, 10)
    assert await cache.lookup(KEYS) == [None] * 3
    await stored(PredictionCache(redis, ttl_seconds=100), ANSWERS)
    assert await cache.lookup(KEYS) == list(ANSWERS.values())


async def test_local_hits_survive_a_redis_outage() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    cache = with_local_cache(client, 10)
    await stored(cache, ANSWERS)
    failed = counter("redis_errors_total", operation="lookup")
    assert await cache.lookup(KEYS) == list(ANSWERS.values())
    assert counter("redis_errors_total", operation="lookup") == failed
    await client.aclose()


async def test_local_cache_holds_at_most_its_number_of_entries(redis: Redis) -> None:
    cache = with_local_cache(redis, 2)
    await stored(cache, ANSWERS)
    await redis.flushdb()
    assert await cache.lookup(KEYS) == [None, ANSWERS[KEYS[1]], ANSWERS[KEYS[2]]]


async def test_local_cache_evicts_the_least_recently_used_entry(redis: Redis) -> None:
    cache = with_local_cache(redis, 2)
    for key in KEYS[:2]:
        await stored(cache, {key: ANSWERS[key]})
    await cache.lookup(KEYS[:1])
    await stored(cache, {KEYS[2]: ANSWERS[KEYS[2]]})
    await redis.flushdb()
    assert await cache.lookup(KEYS) == [ANSWERS[KEYS[0]], None, ANSWERS[KEYS[2]]]


async def test_local_entry_expires_with_the_time_to_live(redis: Redis) -> None:
    cache = with_local_cache(redis, 10, ttl_seconds=1)
    await stored(cache, ANSWERS)
    assert await cache.lookup(KEYS) == list(ANSWERS.values())
    # Redis got the answers a moment later, so once they expired there, they expired here too.
    deadline = asyncio.get_running_loop().time() + 10
    while await redis.exists(*KEYS):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    before = await calls(redis, "mget")
    assert await cache.lookup(KEYS) == [None] * 3
    assert await calls(redis, "mget") - before == 1


async def test_local_cache_without_entries_stores_nothing(redis: Redis) -> None:
    cache = with_local_cache(redis, 0)
    await stored(cache, ANSWERS)
    before = await calls(redis, "mget")
    for _ in range(2):
        assert await cache.lookup(KEYS) == list(ANSWERS.values())
    assert await calls(redis, "mget") - before == 2
    await redis.flushdb()
    assert await cache.lookup(KEYS) == [None] * 3


@asynccontextmanager
async def hanging_redis(entries: int = 0) -> AsyncIterator[PredictionCache]:
    """A cache whose Redis takes connections, and never answers."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client closes the connection
        writer.close()
        ended.release()

    ended = asyncio.Semaphore(0)
    port = free_port()
    server = await asyncio.start_server(hang, "127.0.0.1", port)
    client = connect(f"redis://127.0.0.1:{port}", timeout_seconds=0.2)
    try:
        yield PredictionCache(client, ttl_seconds=100, local_entries=entries)
    finally:
        await client.aclose()
        await asyncio.wait_for(ended.acquire(), 5)
        server.close()


async def test_slow_redis_delays_no_store_and_this_process_knows_at_once() -> None:
    async with hanging_redis(entries=10) as cache:
        failed = counter("redis_errors_total", operation="store")
        # A plain call: no turn of the loop, so no reply waits for it.
        cache.store(ANSWERS)
        assert counter("redis_errors_total", operation="store") == failed
        assert await cache.lookup(KEYS) == list(ANSWERS.values())
        await cache.stop()
        assert counter("redis_errors_total", operation="store") == failed + 1


async def test_stop_writes_what_still_waits_for_redis(cache: PredictionCache, redis: Redis) -> None:
    many = {cache_key("v1", "r1", str(number)): classification("x") for number in range(1_200)}
    cache.store(many)
    await cache.stop()
    assert await redis.dbsize() == 1_200
    assert await cache.lookup(list(many)) == list(many.values())


async def test_stop_does_not_wait_for_a_slow_redis_for_ever() -> None:
    async with hanging_redis() as cache:
        cache.store(ANSWERS)
        async with asyncio.timeout(FLUSH_SECONDS + 5):
            await cache.stop()


async def test_store_that_follows_is_what_redis_keeps(cache: PredictionCache, redis: Redis) -> None:
    later = classification("another text, and longer")
    for value in (ANSWERS[KEYS[0]], later):
        cache.store({KEYS[0]: value})
    await cache.stop()
    assert await cache.lookup(KEYS[:1]) == [later]


async def test_answers_past_the_bound_are_dropped_and_counted() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    cache = PredictionCache(client, ttl_seconds=100, local_entries=10)
    before = counter("cache_writes_dropped_total")
    answer = classification("x")
    cache.store({str(number): answer for number in range(MAX_WAITING_WRITES)})
    assert counter("cache_writes_dropped_total") == before
    cache.store(ANSWERS)
    assert counter("cache_writes_dropped_total") == before + 3
    # Dropped are the writes to Redis alone.
    assert await cache.lookup(KEYS) == list(ANSWERS.values())
    # A Redis that is down takes them all, at no cost; there is room again.
    await cache.stop()
    cache.store(ANSWERS)
    assert counter("cache_writes_dropped_total") == before + 3
    await cache.stop()
    await client.aclose()


async def test_answer_stored_during_a_lookup_is_found(redis: Redis) -> None:
    cache = with_local_cache(redis, 10)
    [key] = KEYS[:1]
    lookup = asyncio.create_task(cache.lookup([key]))
    await asyncio.sleep(0)
    cache.store({key: ANSWERS[key]})
    assert await lookup == [ANSWERS[key]]
    await cache.stop()
