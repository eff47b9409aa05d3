"""Hosts of one service lose their power, or hang, under traffic."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.served.hosts import (
    APIS,
    RUNNERS,
    Hosts,
    stored_is_what_was_acknowledged,
    traffic_of_all,
)
from tests.served.stack import assert_unnoticed, stopped

ONE, OTHER = RUNNERS["v1"]


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


async def test_hanging_runner_host_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        with stopped(hosts.processes(OTHER)[0]):
            for each in sent:
                await each.answers(150)
    for each in sent:
        assert_unnoticed(each)
    await stored_is_what_was_acknowledged(hosts, sent)


async def test_stopped_runner_host_that_comes_back_fails_no_request(hosts: Hosts) -> None:
    async with AsyncExitStack() as stack:
        sent = await traffic_of_all(hosts, stack)
        await asyncio.to_thread(hosts.stacks.pop(OTHER).close)  # SIGTERM, and its end
        for each in sent:
            await each.answers(100)
        await asyncio.to_thread(hosts.start_runner, "v1", OTHER)
        for each in sent:
            await each.answers(50)
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
