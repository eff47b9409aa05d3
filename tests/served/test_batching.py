"""Batches and concurrency of a served Bento."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from redis import Redis

from loadtest.generator import send_load
from loadtest.traffic import Kind, make_traffic
from tests.serving import ServedBento

CLIENTS = 32
# Far past the 100 requests after which BentoML's own client of a runner cuts the calls in flight;
# then one request in ten fails.
REQUESTS = 500
PART_SECONDS, MAX_PARTS = 2.0, 10


def redis_calls(redis: Redis, command: str) -> int:
    stats = redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_batch_of_100_is_one_lookup_and_batched_inference(served: ServedBento) -> None:
    texts = [f"Text number {number} of a large batch." for number in range(100)]
    with Redis.from_url(served.redis_url) as redis, served.client() as client:
        lookups = redis_calls(redis, "mget")
        batches = served.metric("model_batch_texts_count", version="v1")
        rows = served.metric("model_batch_texts_sum", version="v1")
        reply = client.post("/predict/batch", json={"texts": texts})
        assert reply.json()["total"] == 100
        assert redis_calls(redis, "mget") - lookups == 1
        assert served.metric("model_batch_texts_sum", version="v1") - rows == 100
        # At most MAX_BATCH_TEXTS to a batch, and batches that are well filled.
        assert 4 <= served.metric("model_batch_texts_count", version="v1") - batches <= 8
        again = client.post("/predict/batch", json={"texts": texts}).json()
        assert all(prediction["cache_hit"] for prediction in again["predictions"])


async def test_identical_texts_in_flight_are_computed_once(served: ServedBento) -> None:
    before = served.metric("model_batch_texts_sum", version="v2")
    body = {"text": f"Everybody asks this at once. {time.time_ns()}", "version": "v2"}
    async with served.async_client() as client:
        replies = await asyncio.gather(*(client.post("/predict", json=body) for _ in range(50)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["confidence"] for reply in replies}) == 1
    assert served.metric("model_batch_texts_sum", version="v2") - before == 1


@pytest.mark.alone
async def test_texts_of_a_disconnected_client_are_not_computed(served: ServedBento) -> None:
    def batch(name: str) -> dict[str, list[str]]:
        return {"texts": [f"{name} {number}: " + "It was fine. " * 60 for number in range(100)]}

    abandoned = served.metric("model_abandoned_texts_total", version="v1")
    computed = served.metric("model_batch_texts_sum", version="v1")
    async with served.async_client() as client:
        # Seconds of work, between whose texts those of the second batch wait.
        first = asyncio.create_task(client.post("/predict/batch", json=batch("Stays")))
        await asyncio.sleep(0.1)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/predict/batch", json=batch("Leaves"), timeout=0.3)
        assert (await first).status_code == 200
        # What waited is found abandoned when the next batch is taken.
        reply = await client.post("/predict", json={"text": "What comes after it."})
    assert reply.status_code == 200
    gone = served.metric("model_abandoned_texts_total", version="v1") - abandoned
    # A third of a large batch waits at the runner; the rest is never sent.
    assert gone > 20
    of_gone_client = served.metric("model_batch_texts_sum", version="v1") - computed - 101
    assert of_gone_client < 100 - gone - 20


async def test_no_request_of_32_clients_with_distinct_texts_fails(unlimited: ServedBento) -> None:
    """A machine that stands still for a second sheds some: 503 until it goes on, and no longer."""
    traffic, answers = make_traffic(Kind.distinct, seed=0), 0
    for _ in range(MAX_PARTS):
        report = await send_load(unlimited.url, traffic, clients=CLIENTS, seconds=PART_SECONDS)
        assert report.failures.keys() <= {"503"}
        answers = 0 if report.failures else answers + len(report.latencies_seconds)
        if answers > REQUESTS:
            break
    assert answers > REQUESTS
