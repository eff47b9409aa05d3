"""Two API hosts, two runner hosts of v1: one service. tests/prove/faults breaks them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack

import httpx
import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from core import metrics
from runners.first_series import BACKGROUND_TASKS as RUNNER_TASKS
from serving.first_series import BACKGROUND_TASKS
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
from tests.served.traffic import SPARING, Pace
from tests.serving import ServedBento, give_feedback

ONE, OTHER = RUNNERS["v1"]
# Clients that never rest: a host that has nothing to do gets the next call, and would get most of
# them. Some 200 calls tell a third from a half.
ENOUGH = Pace(share=0.4)


async def test_calls_spread_over_the_hosts_of_a_version(hosts: Hosts) -> None:
    before = [await asyncio.to_thread(hosts.texts_computed, each) for each in (ONE, OTHER)]
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack, ENOUGH)
        for each in sent:
            await each.answers(150)
    for each in sent:
        assert_unnoticed(each)
    after = [await asyncio.to_thread(hosts.texts_computed, each) for each in (ONE, OTHER)]
    computed = [late - early for late, early in zip(after, before, strict=True)]
    assert sum(computed) == sum(len(each.acknowledged) for each in sent)
    # Half each, unless other tests leave one of them less time.
    assert min(computed) > 0.2 * sum(computed)
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
        assert give_feedback(other, first["id"], "neutral").status_code == 202


def test_each_counter_is_on_the_hosts_that_count_in_it(hosts: Hosts) -> None:
    counters = {
        f"{value._name}_total" for value in vars(metrics).values() if isinstance(value, Counter)
    }
    of_api, of_runner = (counter_samples(hosts.running[host]) for host in (APIS[0], ONE))
    assert len(counters) > 25
    assert counters <= of_api.keys() | of_runner.keys()
    assert {"model_tokens_total", "model_changes_total"} <= of_runner.keys()
    # Before anything fails: a series that begins with its first failure shows no increase.
    assert len(of_runner["background_failures_total"]) == len(RUNNER_TASKS)
    assert len(of_api["background_failures_total"]) == len(BACKGROUND_TASKS)


def counter_samples(host: ServedBento) -> dict[str, list[float]]:
    """The values of all series of each counter of a host."""
    values: dict[str, list[float]] = defaultdict(list)
    for family in text_string_to_metric_families(httpx.get(f"{host.url}/metrics").text):
        for sample in family.samples:
            values[sample.name].append(sample.value)
    return values


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


@pytest.mark.last
async def test_stopped_runner_host_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack, SPARING)
        await asyncio.to_thread(hosts.stacks.pop(OTHER).close)  # SIGTERM, and its end
        for each in sent:
            await each.answers(100)
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)
