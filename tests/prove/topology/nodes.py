"""The nodes of the proof, and what runs on them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.prove.nginx.server import SEVERAL_HOSTS, nginx
from tests.prove.topology.data_node import data_node
from tests.prove.topology.network import SUBNET, TESTS_ADDRESS, Network, network
from tests.served.hosts import Hosts
from tests.serving import ServedBento
from tests.waiting import wait_until

APIS = (f"{SUBNET}.11", f"{SUBNET}.12")
RUNNERS = {"v1": (f"{SUBNET}.21", f"{SUBNET}.22"), "v2": (f"{SUBNET}.31", f"{SUBNET}.32")}
DATA, INGRESS, CLIENT = f"{SUBNET}.40", f"{SUBNET}.50", f"{SUBNET}.60"
NAMES = {
    **{address: f"api{number}" for number, address in enumerate(APIS)},
    **{
        address: f"runner-{version}-{number}"
        for version, addresses in RUNNERS.items()
        for number, address in enumerate(addresses)
    },
    DATA: "data",
    INGRESS: "ingress",
    CLIENT: "client",
}
PORT = 3000
# Two probes that miss, of a second each and a second apart, and the time that a busy machine adds.
NOTICED_SECONDS = 15.0
# As docs/operations.md has it for several hosts behind nginx.
REQUEST_TIMEOUT_SECONDS = 8
SETTINGS = {
    "REQUEST_TIMEOUT_SECONDS": str(REQUEST_TIMEOUT_SECONDS),
    "FORWARDED_ALLOW_IPS": INGRESS,
    "DRAIN_SECONDS": "1",
    # They are counted in Redis, and never reached.
    "RATE_LIMIT_PREDICT": "1000000/minute",
    "RATE_LIMIT_BATCH": "1000000/minute",
    "RATE_LIMIT_ANALYTICS": "1000000/minute",
    "TEXT_STORAGE": "full",
    # All nodes share two cores: what is refused for being slow is no matter here.
    "MAX_QUEUE_SECONDS": "30",
    "MAX_BULK_QUEUE_SECONDS": "30",
}


@dataclass(frozen=True)
class Topology:
    """A service on nodes of their own."""

    hosts: Hosts
    network: Network
    folder: Path
    url: str  # of nginx

    @property
    def balanced(self) -> ServedBento:
        """The service as clients see it, through nginx."""
        return replace(self.hosts.running[APIS[0]], url=self.url)

    def tries(self) -> list[Try]:
        """The requests that nginx has sent on, so far."""
        lines = (self.folder / "nginx" / "tries").read_text().splitlines()
        return [Try(*line.split(" ", 2)) for line in lines]


@dataclass(frozen=True)
class Try:
    """A request in nginx's log."""

    path: str
    status: str
    hosts: str  # with commas between them

    @property
    def is_repeated(self) -> bool:
        return "," in self.hosts


@contextmanager
def topology_in(folder: Path, bentoml_home: Path) -> Iterator[Topology]:
    with ExitStack() as running:
        names = {TESTS_ADDRESS, *NAMES}
        # No proxy of the machine is asked for what runs here.
        before = os.environ.get("NO_PROXY", "")
        running.callback(os.environ.__setitem__, "NO_PROXY", before)
        os.environ["NO_PROXY"] = ",".join([*names, before])
        made = running.enter_context(network(NAMES))
        database_url, redis_url = running.enter_context(data_node(folder, DATA, made.enter(DATA)))
        hosts = Hosts(
            bentoml_home, folder, PORT, database_url, redis_url,
            settings={"ALLOW_ANONYMOUS": "1"}, api_settings=SETTINGS,
            apis=APIS, runners=RUNNERS, enter=made.enter,
        )  # fmt: skip
        running.callback(hosts.stop)
        hosts.start_all()
        (folder / "nginx").mkdir()
        server = _documented_server(APIS)
        running.enter_context(nginx(folder / "nginx", server, (INGRESS, 80), made.enter(INGRESS)))
        yield Topology(hosts, made, folder, f"http://{INGRESS}")


async def until_known(topology: Topology, version: str, count: int) -> None:
    """Wait until each API node says that it reaches so many runner nodes of a version."""

    def all_know() -> bool:
        hosts = [topology.hosts.running[api] for api in APIS]
        return [host.metric("runner_hosts", version=version) for host in hosts] == [count] * 2

    await asyncio.to_thread(wait_until, all_know, NOTICED_SECONDS)


def _documented_server(apis: Sequence[str]) -> str:
    """nginx's configuration of the documentation, for these hosts."""
    server: str = SEVERAL_HOSTS
    for number, address in enumerate(apis, 11):
        assert f"10.0.0.{number}:3000" in server
        server = server.replace(f"10.0.0.{number}:3000", f"{address}:{PORT}")
    return server
