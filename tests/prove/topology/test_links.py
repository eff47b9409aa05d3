"""Links of nodes fail under load."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from analytics.rollups import WRITERS_LOCK
from core.paths import ROOT
from core.postgres import create_engine
from tests.prove.topology.load import under_load
from tests.prove.topology.network import Network
from tests.prove.topology.nodes import APIS, DATA, RUNNERS, Topology, until_known

Record = Callable[[str, object], None]

# As a shipper or a labelling in the middle of its transaction.
HOLD_THE_LOG = """
import asyncio, sys
from sqlalchemy import make_url
from analytics.rollups import WRITERS_LOCK
from core.postgres import create_engine

async def hold():
    engine = create_engine(make_url(sys.argv[1]), pool_size=1, timeout_seconds=10)
    async with engine.connect() as connection:
        await connection.execute(WRITERS_LOCK)
        print("held", flush=True)
        await asyncio.sleep(300)

asyncio.run(hold())
"""


async def get(url: str) -> httpx.Response:
    return await asyncio.to_thread(httpx.get, url, timeout=20)


async def test_healthy_nodes_answer_the_load(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    async with under_load(topology, tmp_path) as load:
        await load.counted.answers(200)
    load.assert_unharmed()
    load.assert_ready_throughout()
    assert load.more_rows == 0
    load.record(record_property)


@pytest.mark.parametrize("fail", [Network.cut, Network.unplugged])
async def test_runner_node_that_no_packet_reaches_fails_no_request(
    topology: Topology,
    tmp_path: Path,
    record_property: Record,
    fail: Callable[[Network, str], AbstractContextManager[None]],
) -> None:
    one = RUNNERS["v1"][0]
    async with under_load(topology, tmp_path) as load:
        with fail(topology.network, one):
            await until_known(topology, "v1", 1)
            await load.counted.answers(150)
            for api in APIS:
                assert (await get(f"{topology.hosts.running[api].url}/readyz")).is_success
        await until_known(topology, "v1", 2)
        before = await asyncio.to_thread(topology.hosts.texts_computed, one)
        await load.counted.answers(150)
        assert await asyncio.to_thread(topology.hosts.texts_computed, one) > before
    load.assert_unharmed()
    load.assert_ready_throughout()
    load.record(record_property)


async def test_runner_node_behind_a_slow_link_fails_no_request(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    one, other = RUNNERS["v1"]
    computed = topology.hosts.texts_computed
    async with under_load(topology, tmp_path) as load:
        with topology.network.slow(one, delay_ms=100, loss_percent=5):
            before = [await asyncio.to_thread(computed, each) for each in (one, other)]
            await load.counted.answers(300)
            after = [await asyncio.to_thread(computed, each) for each in (one, other)]
        await load.counted.answers(50)
    load.assert_unharmed()
    load.assert_ready_throughout()
    slow, usual = (late - early for late, early in zip(after, before, strict=True))
    record_property("share of the slow node", f"{slow / (slow + usual):.0%}")
    load.record(record_property)


async def test_data_node_that_no_packet_reaches_delays_the_log_and_fails_no_prediction(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    api = topology.hosts.running[APIS[0]]
    async with under_load(topology, tmp_path) as load:
        with topology.network.cut(DATA):
            await asyncio.sleep(5)
            await load.counted.answers(200)
            assert (await get(f"{api.url}/readyz")).is_success
            refused = await get(f"{api.url}/analytics/summary")
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            waiting = api.metric("prediction_log_spool_age_seconds")
            assert waiting > 3
            health = (await get(f"{api.url}/health")).json()
            assert (health["database_connected"], health["redis_connected"]) == (False, False)
        await load.counted.answers(50)
    load.assert_unharmed(except_analytics=True)
    load.assert_ready_throughout()
    record_property("oldest line that waited, s", f"{waiting:.0f}")
    load.record(record_property)


async def test_node_that_vanishes_within_a_transaction_stops_the_log_for_half_a_minute(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    gone = APIS[0]
    url = topology.hosts.database_url.render_as_string(hide_password=False)
    command = [*topology.network.enter(gone), sys.executable, "-c", HOLD_THE_LOG, url]
    loop = asyncio.get_running_loop()
    async with under_load(topology, tmp_path) as load:
        holding = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
        assert holding.stdout is not None
        assert await asyncio.wait_for(holding.stdout.readline(), 20) == b"held\n"
        with topology.network.cut(gone):
            started = loop.time()
            engine = create_engine(topology.hosts.database_url, pool_size=1, timeout_seconds=90)
            async with engine.connect() as connection:
                await connection.execute(WRITERS_LOCK)
            await engine.dispose()
            seconds = loop.time() - started
            holding.kill()
            await holding.wait()
        await load.counted.answers(50)
    load.assert_unharmed()
    assert seconds < 45
    record_property("the log stood, s", f"{seconds:.0f}")
    load.record(record_property)
