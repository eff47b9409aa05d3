"""Far more is asked of a served Bento than it can do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest

from loadtest.open_loop import OpenLoop
from loadtest.traffic import Kind, make_traffic
from tests.serving import ServedBento
from tests.waiting import wait_until
from web.shedding import QUIET_SECONDS

# Twice as many as two fast cores answer; slow cores answer fewer of them, and at three times as
# many a busy machine has no time to refuse the rest.
FLOOD_PER_SECOND = 1_200
FLOOD_SECONDS = 4.0
# Some times what it takes, for a machine that has other things to do as well.
RECOVERY_SECONDS = 30.0
ANSWERED_IN_A_ROW = 20


async def ask_as_another(bento: ServedBento) -> list[bool]:
    """Send a request at a time while the flood lasts; whether each is answered."""
    answered = []
    async with bento.async_client() as client:
        end = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < end:
            reply = await client.post("/predict", json={"text": f"Let me by. {time.time_ns()}"})
            answered.append(reply.is_success)
            await asyncio.sleep(0.1)
    return answered


@pytest.mark.alone
async def test_flood_is_answered_or_shed_and_recovery_is_quick(unlimited: ServedBento) -> None:
    load = OpenLoop(unlimited.url)
    texts = make_traffic(Kind.distinct, seed=0).requests
    other = asyncio.create_task(ask_as_another(unlimited))
    outcomes = await load.send(load.plan(texts, rate=FLOOD_PER_SECOND, seconds=FLOOD_SECONDS))
    over = time.monotonic()
    load.close()
    # Another caller is hardly refused: the first requests of the flood found an empty queue.
    answered = await other
    assert sum(answered) > 0.7 * len(answered)
    statuses = Counter(each.status for each in outcomes)
    assert {each.failure for each in outcomes} == {""}
    assert statuses.keys() == {200, 503}
    assert min(statuses.values()) > 100
    async with unlimited.async_client() as client:
        answered_in_a_row = 0
        while answered_in_a_row < ANSWERED_IN_A_ROW:
            assert time.monotonic() < over + RECOVERY_SECONDS
            reply = await client.post("/predict", json={"text": f"Is it over? {time.time_ns()}"})
            if reply.is_success:
                answered_in_a_row += 1
            else:
                assert int(reply.headers["retry-after"]) >= 1
                answered_in_a_row = 0
            await asyncio.sleep(0.02)
        shed = [
            line
            for line in (await client.get("/metrics")).text.splitlines()
            if line.startswith("shed_requests_total{")
        ]
    assert sum(float(line.split()[-1]) for line in shed) >= statuses[503]
    # Each API process throttles until then, and other tests use the same Bento.
    await asyncio.sleep(QUIET_SECONDS)


@pytest.mark.alone
async def test_short_texts_overtake_batches_of_long_texts(unlimited: ServedBento) -> None:
    review = "A film about a phone that is charged again and again, and never at all. " * 12
    async with unlimited.async_client() as client:
        # A runner that was loaded beside other tests takes itself for slow, until it is asked.
        for part in range(10):
            texts = [f"Before, {part}, {number}. {review}" for number in range(20)]
            await client.post("/predict/batch", json={"texts": texts})
        started = time.perf_counter()

        async def post_reviews(batch: int) -> float:
            texts = [f"{batch}, {part}. {review}" for part in range(100)]
            reply = await client.post("/predict/batch", json={"texts": texts})
            assert reply.status_code == 200, reply.text
            return time.perf_counter() - started

        # One alone takes less than a second on a fast machine.
        large = [asyncio.create_task(post_reviews(batch)) for batch in range(2)]
        await asyncio.sleep(0.2)
        replies = [
            await client.post("/predict", json={"text": f"Short, {number}."})
            for number in range(10)
        ]
        small_seconds = time.perf_counter() - started
        assert [reply.text for reply in replies if not reply.is_success] == []
        # Ten, one after the other, were answered before the batches that came before them.
        assert small_seconds < max(await asyncio.gather(*large))


def test_request_timeout_header_ends_the_request_with_504(unlimited: ServedBento) -> None:
    with unlimited.client() as client:
        before = abandoned(client)
        reply = client.post(
            "/predict/batch",
            json={"texts": [f"{number} of these. " * 100 for number in range(100)]},
            headers={"X-Request-Timeout-Ms": "300"},
        )
        assert reply.status_code == 504
        assert reply.json()["detail"] == "The answer took longer than 0.3 s"
        assert int(reply.headers["retry-after"]) >= 1
        # And what nobody waits for is not computed to the end.
        wait_until(lambda: abandoned(client) != before, RECOVERY_SECONDS)


def abandoned(client: httpx.Client) -> list[str]:
    name = 'model_abandoned_texts_total{version="v1"}'
    return [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
