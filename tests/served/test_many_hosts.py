"""Two API hosts, two runner hosts a version: one service. tests/prove/faults breaks them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack

import httpx

from tests.served.hosts import (
    APIS,
    NEXT_RUNNER_KEY,
    RUNNER_KEY,
    RUNNERS,
    Hosts,
    stored_is_what_was_acknowledged,
    traffic_of_all,
)
from tests.served.stack import assert_unnoticed
from tests.served.traffic import SPARING

ONE, OTHER = RUNNERS["v1"]


async def test_calls_spread_over_the_hosts_of_a_version(hosts: Hosts) -> None:
    before = [await asyncio.to_thread(hosts.texts_computed, each) for each in (ONE, OTHER)]
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        for each in sent:
            await each.answers(150)
    for each in sent:
        assert_unnoticed(each)
    after = [await asyncio.to_thread(hosts.texts_computed, each) for each in (ONE, OTHER)]
    computed = [late - early for late, early in zip(after, before, strict=True)]
    assert sum(computed) == sum(len(each.acknowledged) for each in sent)
    assert min(computed) > 0.3 * sum(computed)
    await stored_is_what_was_acknowledged(hosts, sent)


def test_api_hosts_share_cache_limits_and_log(hosts: Hosts) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(hosts.running[api].client()) for api in APIS)
        first = one.post("/predict", json={"text": "Asked of one, and then of the other."}).json()
        again = other.post("/predict", json={"text": "Asked of one, and then of the other."}).json()
        assert (first["cache_hit"], again["cache_hit"]) == (False, True)
        assert first["confidence"] == again["confidence"]
        # The same client asks both.
        other.headers["X-Forwarded-For"] = one.headers["X-Forwarded-For"]
        for _ in range(3):
            assert one.get("/analytics/summary").is_success
        status = other.get("/rate-limit/status", params={"limit": "analytics"}).json()
        assert status["remaining"] == status["limit"] - 3
        feedback = {"prediction_id": first["id"], "label": "neutral"}
        assert other.post("/feedback", json=feedback).status_code == 202


def test_runner_requires_its_key(hosts: Hosts) -> None:
    url = hosts.running[ONE].url
    assert httpx.get(f"{url}/readyz").is_success
    assert httpx.get(f"{url}/metrics").is_success
    for headers in ({}, {"X-Runner-Key": "another"}):
        reply = httpx.post(f"{url}/describe", headers=headers)
        assert (reply.status_code, "RUNNER_KEY" in reply.text) == (403, True)
    for key in (RUNNER_KEY, NEXT_RUNNER_KEY):
        reply = httpx.post(f"{url}/describe", headers={"X-Runner-Key": key})
        assert reply.status_code == 415  # it is let in, and sends no message


async def test_stopped_runner_host_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack, SPARING)
        await asyncio.to_thread(hosts.stacks.pop(OTHER).close)  # SIGTERM, and its end
        for each in sent:
            await each.answers(100)
        await asyncio.to_thread(hosts.start_runner, "v1", OTHER)
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)
