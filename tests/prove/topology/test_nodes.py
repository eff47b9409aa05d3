"""Nodes are lost, drained and replaced under load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.prove.topology.load import under_load
from tests.prove.topology.nodes import APIS, RUNNERS, Topology, until_known

Record = Callable[[str, object], None]


async def test_runner_node_without_power_is_replaced_and_fails_no_request(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    one = RUNNERS["v1"][1]
    async with under_load(topology, tmp_path) as load:
        await asyncio.to_thread(topology.hosts.kill, one)
        await until_known(topology, "v1", 1)
        await load.counted.answers(100)
        await asyncio.to_thread(topology.hosts.start_runner, "v1", one)
        await until_known(topology, "v1", 2)
        await load.counted.answers(100)
        assert await asyncio.to_thread(topology.hosts.texts_computed, one) > 0
    load.assert_unharmed()
    load.assert_ready_throughout()
    assert load.more_rows == 0
    load.record(record_property)


async def test_api_node_is_drained_and_replaced_and_fails_no_request(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    async with under_load(topology, tmp_path) as load:
        await asyncio.to_thread(topology.hosts.stacks.pop(APIS[0]).close)
        await load.counted.answers(100)
        await asyncio.to_thread(topology.hosts.start_api, APIS[0])
        await load.counted.answers(100)
    load.assert_unharmed()
    # Whatever it began it has answered, so nginx repeated only what it refused to take.
    assert load.more_rows == 0
    assert await asyncio.to_thread(answered, topology, APIS[0]) > 0
    load.record(record_property)


async def test_api_node_that_no_packet_reaches_fails_no_request(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    async with under_load(topology, tmp_path) as load:
        with topology.network.cut(APIS[1]):
            # What it had is repeated when nginx has waited long enough.
            await load.counted.answers(400)
        await load.counted.answers(100)
    load.assert_unharmed()
    load.record(record_property)


async def test_api_node_without_power_is_replaced_and_fails_no_request(
    topology: Topology, tmp_path: Path, record_property: Record
) -> None:
    async with under_load(topology, tmp_path) as load:
        await asyncio.to_thread(topology.hosts.kill, APIS[0])
        await load.counted.answers(100)
        # On its own disk, from which it ships what was acknowledged.
        await asyncio.to_thread(topology.hosts.start_api, APIS[0])
        await load.counted.answers(100)
    load.assert_unharmed()
    assert await asyncio.to_thread(answered, topology, APIS[0]) > 0
    load.record(record_property)


def answered(topology: Topology, api: str) -> float:
    """How many predictions an API node has answered since its start."""
    return topology.hosts.running[api].metric("model_predictions_total")
