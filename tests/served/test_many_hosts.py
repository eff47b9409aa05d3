"""Two API hosts, two runner hosts a version: one service, of which any may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest

from analytics.log.segments import segments
from tests.database import fetch
from tests.served.hosts import APIS, RUNNERS, Hosts, hosts_in
from tests.served.stack import assert_unnoticed, stopped
from tests.served.traffic import Traffic, traffic
from tests.waiting import until

ONE, OTHER = RUNNERS["v1"]
RECOVERY_SECONDS = 30.0


@pytest.fixture(scope="module")
def hosts(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts_in(tmp_path_factory.mktemp("hosts"), bentoml_home) as made:
        yield made


async def traffic_of_all(hosts: Hosts, stack: AsyncExitStack) -> list[Traffic]:
    return [await stack.enter_async_context(traffic(hosts.running[api])) for api in APIS]


async def stored_is_what_was_acknowledged(hosts: Hosts, sent: list[Traffic]) -> None:
    """Each once, whichever host acknowledged it."""
    await until(lambda: not any(segments(hosts.spool(api)) for api in APIS), RECOVERY_SECONDS)
    rows = await asyncio.to_thread(fetch, hosts.database_url, "SELECT id::text FROM predictions")
    acknowledged = [each for of in sent for each in of.acknowledged]
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= {row["id"] for row in rows}


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


async def test_runner_host_without_power_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        await asyncio.to_thread(hosts.kill, ONE)
        for each in sent:
            await each.answers(150)
        # And it is asked again when it is back.
        await asyncio.to_thread(hosts.start_runner, "v1", ONE)
        for each in sent:
            await each.answers(150)
        assert hosts.running[APIS[0]].metric("runner_hosts", version="v1") == 2
        assert hosts.texts_computed(ONE) > 0
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)


async def test_stopped_runner_host_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        await asyncio.to_thread(hosts.stacks.pop(OTHER).close)  # SIGTERM, and its end
        for each in sent:
            await each.answers(100)
        await asyncio.to_thread(hosts.start_runner, "v1", OTHER)
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)


async def test_hanging_runner_host_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        with stopped(hosts.processes(OTHER)[0]):
            for each in sent:
                await each.answers(150)
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)


async def test_api_host_without_power_loses_no_acknowledged_prediction(hosts: Hosts) -> None:
    killed = APIS[0]
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        await asyncio.to_thread(hosts.kill, killed)
        await sent[1].answers(150)
        # It comes back to its own disk.
        await asyncio.to_thread(hosts.start_api, killed)
        for each in sent:
            await each.answers(50)
    assert_unnoticed(sent[1])
    assert sent[0].broken > 0
    await stored_is_what_was_acknowledged(hosts, sent)
