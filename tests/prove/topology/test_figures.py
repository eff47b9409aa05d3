"""What a request costs on the way between nodes: the figures of docs/scale.md."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import psutil
import redis

from analytics.log.segments import segments
from core.paths import ROOT
from loadtest.traffic import Kind, Request, make_traffic
from tests.database import scalar
from tests.prove.topology.hop import LISTENING
from tests.prove.topology.load import nothing_waits
from tests.prove.topology.nodes import APIS, DATA, INGRESS, RUNNERS, Topology
from tests.waiting import until

Record = Callable[[str, object], None]
ALL_RUNNERS = tuple(itertools.chain(*RUNNERS.values()))
REQUESTS = 400
CLIENTS = 8
IDLE_SECONDS, IDLE_SAMPLES = 3.0, 3
CALLS, ROUNDS = 4_000, 3
# Alone, each call wakes both ends; those that come at once share wake-ups and packets.
CALLERS = (1, 16)
HOP_PORT = 4000
ESTABLISHED = "01"


async def send(topology: Topology, kind: Kind, seed: int) -> None:
    """REQUESTS of a kind, through nginx."""
    made = make_traffic(kind, seed=seed)
    await send_all(topology, itertools.islice(made.requests, REQUESTS))


async def send_all(topology: Topology, made: Iterable[Request]) -> None:
    requests = iter(list(made))
    async with topology.balanced.async_client() as client:

        async def keep_sending() -> None:
            for request in requests:
                await answer(client, request)

        await asyncio.gather(*(keep_sending() for _ in range(CLIENTS)))


async def answer(client: httpx.AsyncClient, request: Request) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await client.post(request.path, content=request.body, headers=headers)
    assert reply.status_code == 200


def sent(topology: Topology) -> dict[str, int]:
    """The bytes of all nodes so far, by role."""
    count = topology.network.bytes_of
    return {
        "ingress": count(INGRESS),
        "api": sum(map(count, APIS)),
        "runners": sum(map(count, ALL_RUNNERS)),
        "data": count(DATA),
    }


async def test_bytes_of_a_request_between_nodes(
    topology: Topology, record_property: Record
) -> None:
    await until(lambda: nothing_waits(topology), 30)
    loop = asyncio.get_running_loop()
    # The quietest of some seconds: what is done now and then is no matter here.
    rates = []
    for _ in range(IDLE_SAMPLES):
        early, started = await asyncio.to_thread(sent, topology), loop.time()
        await asyncio.sleep(IDLE_SECONDS)
        late, seconds = await asyncio.to_thread(sent, topology), loop.time() - started
        rates.append({role: (late[role] - early[role]) / seconds for role in late})
    idle_rate = min(rates, key=lambda rate: sum(rate.values()))
    before, started = await asyncio.to_thread(sent, topology), loop.time()
    await send(topology, Kind.distinct, seed=1)
    await until(lambda: nothing_waits(topology), 30)
    after, busy_seconds = await asyncio.to_thread(sent, topology), loop.time() - started
    of_one = {
        role: (after[role] - before[role] - idle_rate[role] * busy_seconds) / REQUESTS
        for role in before
    }
    # A byte between two nodes is counted at both.
    to_api = of_one["api"] - of_one["runners"] - of_one["data"]
    record_property("bytes a request: client to nginx", round(of_one["ingress"] - to_api))
    record_property("nginx to API", round(to_api))
    record_property("API to runner", round(of_one["runners"]))
    record_property("API to Redis and PostgreSQL", round(of_one["data"]))
    pairs = len(APIS) * len(ALL_RUNNERS)
    record_property("idle, bytes/s: an API and a runner", round(idle_rate["runners"] / pairs))
    record_property("an API and the data node", round(idle_rate["data"] / len(APIS)))
    assert 0 < of_one["runners"] < to_api


async def test_redis_commands_and_cpu_time_of_a_request(
    topology: Topology, record_property: Record
) -> None:
    with redis.Redis.from_url(topology.hosts.redis_url) as server:
        for kind in (Kind.distinct, Kind.repeated):
            await send_all(topology, make_traffic(kind, seed=2).primer)
            await until(lambda: nothing_waits(topology), 30)
            commands, cpu = _commands(server), _cpu_ms(topology, server)
            await send(topology, kind, seed=2)
            by_name = {
                name: times - commands.get(name, 0)
                for name, times in _commands(server).items()
                if times > commands.get(name, 0) and name not in ("info", "ping")
            }
            listed = ", ".join(
                f"{times / REQUESTS:.2f} {name.upper()}" for name, times in sorted(by_name.items())
            )
            record_property(f"Redis, a request of {kind}", listed)
            await until(lambda: nothing_waits(topology), 30)
            for role, late in _cpu_ms(topology, server).items():
                record_property(f"{role}, CPU ms", f"{(late - cpu[role]) / REQUESTS:.2f}")
            # A look-up, a store and a counter at most: the other commands are those of its script.
            assert sum(by_name.get(name, 0) for name in ("mget", "set", "evalsha")) < 3.1 * REQUESTS


def _commands(server: redis.Redis) -> dict[str, int]:
    stats = server.info("commandstats")
    return {name.removeprefix("cmdstat_"): of["calls"] for name, of in stats.items()}


def _cpu_ms(topology: Topology, server: redis.Redis) -> dict[str, float]:
    """CPU time of each role so far."""
    status = topology.folder / "postgres" / "postmaster.pid"
    postmaster = psutil.Process(int(status.read_text().split()[0]))
    redis_cpu = server.info("cpu")

    def of(processes: list[psutil.Process]) -> float:
        # Of sessions that have ended, their parent knows.
        return 1_000 * float(sum(sum(process.cpu_times()[:4]) for process in processes))

    def of_nodes(addresses: Sequence[str]) -> float:
        return sum(of(topology.hosts.processes(address)) for address in addresses)

    return {
        "API": of_nodes(APIS),
        "runners": of_nodes(ALL_RUNNERS),
        "PostgreSQL": of([postmaster, *postmaster.children(recursive=True)]),
        "Redis": 1_000 * (redis_cpu["used_cpu_sys"] + redis_cpu["used_cpu_user"]),
    }


async def test_connections_of_a_node(topology: Topology, record_property: Record) -> None:
    await send(topology, Kind.distinct, seed=3)
    table = topology.network.nodes[APIS[0]].run("cat", "/proc/net/tcp")
    peers = [
        _address(fields[2])
        for fields in map(str.split, table.splitlines()[1:])
        if fields[3] == ESTABLISHED
    ]
    counts = {
        "nginx": peers.count(INGRESS),
        "runner": max(peers.count(each) for each in ALL_RUNNERS),
        "data": peers.count(DATA),
    }
    of_node = f"SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{APIS[0]}'"
    counts["PostgreSQL"] = await asyncio.to_thread(scalar, topology.hosts.database_url, of_node)
    record_property("of an API node, to nginx", counts["nginx"])
    record_property("to a runner", counts["runner"])
    record_property("to PostgreSQL", counts["PostgreSQL"])
    record_property("to Redis", counts["data"] - counts["PostgreSQL"])
    # DATABASE_POOL_SIZE, and those of the log.
    assert counts["PostgreSQL"] <= 7
    assert counts["runner"] <= 3


def _address(field: str) -> str:
    """The address of /proc/net/tcp: four bytes, the last one first, in hexadecimal."""
    return ".".join(str(byte) for byte in bytes.fromhex(field.partition(":")[0])[::-1])


async def test_bytes_of_a_prediction_in_the_spool(
    topology: Topology, record_property: Record
) -> None:
    await until(lambda: nothing_waits(topology), 30)
    with topology.network.cut(DATA):
        await send(topology, Kind.distinct, seed=4)
        files = [file for api in APIS for file in segments(topology.hosts.spool(api))]
        lines = b"".join(file.read_bytes() for file in files)
        assert lines.count(b"\n") >= REQUESTS
        record_property("bytes", round(len(lines) / lines.count(b"\n")))
    await until(lambda: nothing_waits(topology), 30)


def test_cpu_of_a_hop(topology: Topology, tmp_path: Path, record_property: Record) -> None:
    api, runner = APIS[0], RUNNERS["v1"][0]
    socket = tmp_path / "socket"
    ways = {
        "Unix socket": (f"unix:{socket}", f"unix:{socket}", runner),
        "TCP, same node": (f"tcp:127.0.0.1:{HOP_PORT}", f"http://127.0.0.1:{HOP_PORT}", runner),
        "TCP, other node": (f"tcp:{runner}:{HOP_PORT + 1}", f"http://{runner}:{HOP_PORT + 1}", api),
    }
    used: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for way, (where, url, caller) in ways.items():
            with _hop_host(topology, where, runner) as process:
                for callers in CALLERS:
                    before = sum(process.cpu_times()[:2])
                    calling = _hop(topology, caller, "call", url, str(CALLS), str(callers))
                    seconds = float(subprocess.check_output(calling, cwd=ROOT, text=True))
                    seconds += sum(process.cpu_times()[:2]) - before
                    used[callers, way].append(1e6 * seconds / CALLS)
    costs = {key: median(of) for key, of in used.items()}
    for (callers, way), cost in sorted(costs.items()):
        record_property(f"{way}, {callers} at a time, CPU microseconds a call", round(cost))
    for callers in CALLERS:
        assert costs[callers, "TCP, other node"] < 3 * costs[callers, "Unix socket"]


def _hop(topology: Topology, node: str, *arguments: str) -> list[str]:
    module = [sys.executable, "-m", "tests.prove.topology.hop", *arguments]
    return [*topology.network.enter(node), *module]


@contextmanager
def _hop_host(topology: Topology, where: str, node: str) -> Iterator[psutil.Process]:
    started = subprocess.Popen(
        _hop(topology, node, "host", where), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    try:
        assert started.stdout.readline().strip() == LISTENING
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait()
        started.stdout.close()
