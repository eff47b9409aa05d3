"""A service that is spread over machines, each an address with processes of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import URL

from analytics.log.segments import segments
from core.paths import ROOT
from loadtest.ports import free_port
from serving.embedded.redis import embedded_redis
from tests.clusters import MIGRATED, postgres_in
from tests.database import fetch
from tests.served.traffic import FULL, Pace, Traffic, traffic
from tests.serving import ServedBento, serve
from tests.waiting import until

RUNNER_KEY = "of-these-hosts-until-today"
NEXT_RUNNER_KEY = "of-these-hosts-from-tomorrow-on"
APIS = ("127.0.1.1", "127.0.1.2")
RUNNERS = {"v1": ("127.0.2.1", "127.0.2.2"), "v2": ("127.0.3.1", "127.0.3.2")}
RECOVERY_SECONDS = 30.0
UNLIMITED = {"RATE_LIMIT_PREDICT": "off", "RATE_LIMIT_BATCH": "off", "LOCAL_CACHE_ENTRIES": "0"}


@dataclass
class Hosts:
    """Some that serve the API and some for each version; one PostgreSQL, one Redis.

    They are loopback addresses, unless `enter` says which command runs another on the machine that
    has an address.
    """

    bentoml_home: Path
    folder: Path
    port: int
    database_url: URL
    redis_url: str
    build: Path = ROOT  # what hosts that start from now on run
    settings: dict[str, str] = field(default_factory=dict)
    api_settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, ServedBento] = field(default_factory=dict)
    stacks: dict[str, ExitStack] = field(default_factory=dict)
    apis: Sequence[str] = APIS
    runners: Mapping[str, Sequence[str]] = field(default_factory=lambda: RUNNERS)
    enter: Callable[[str], Sequence[str]] = lambda _: ()

    def start(self, address: str, role: str, **settings: str) -> None:
        folder = self.folder / address
        folder.mkdir(exist_ok=True)
        self.stacks[address] = ExitStack()
        self.running[address] = self.stacks[address].enter_context(
            serve(
                self.bentoml_home,
                self.database_url,
                self.redis_url,
                log=folder / "log",
                host=address,
                port=self.port,
                role=role,
                bento=None,
                build=self.build,
                enter=self.enter(address),
                RUNNER_KEY=RUNNER_KEY,
                RUNNER_KEY_ALSO_ACCEPTED=NEXT_RUNNER_KEY,
                **self.settings,
                **settings,
            )
        )

    def start_runner(self, version: str, address: str) -> None:
        self.start(address, f"sentiment_runner_{version}", RUNNER_THREADS="1")

    def start_api(self, address: str) -> None:
        runners = {
            f"sentiment_runner_{version}": ",".join(f"http://{each}:{self.port}" for each in hosts)
            for version, hosts in self.runners.items()
        }
        self.start(
            address,
            "sentiment",
            BENTOML_SERVE_RUNNER_MAP=json.dumps(runners),
            **(UNLIMITED | self.api_settings),
        )

    def start_all(self) -> None:
        runners = [(version, each) for version, of in self.runners.items() for each in of]
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(lambda each: self.start_runner(*each), runners))
            list(side_by_side.map(self.start_api, self.apis))

    def stop(self) -> None:
        with ThreadPoolExecutor() as side_by_side:
            for role in (self.apis, [each for of in self.runners.values() for each in of]):
                # One that did not start is not there.
                started = [self.stacks[address] for address in role if address in self.stacks]
                list(side_by_side.map(ExitStack.close, started))

    def processes(self, address: str) -> list[psutil.Process]:
        server = psutil.Process(self.running[address].process.pid)
        return [server, *server.children(recursive=True)]

    def kill(self, address: str) -> None:
        """As if its machine had lost its power."""
        for process in self.processes(address):
            process.kill()
        self.stacks.pop(address).close()

    def texts_computed(self, address: str) -> float:
        return self.running[address].metric("model_batch_texts_sum")

    def spool(self, address: str) -> Path:
        return self.folder / address / "data" / "spool"


@contextmanager
def hosts_in(
    folder: Path,
    bentoml_home: Path,
    runners: Mapping[str, Sequence[str]] = RUNNERS,
    /,
    **api_settings: str,
) -> Iterator[Hosts]:
    with ExitStack() as running:
        server = running.enter_context(postgres_in(folder / "postgres"))
        database_url = server.set(database=MIGRATED)
        redis_url = running.enter_context(embedded_redis(folder / "redis", max_memory="64mb"))
        hosts = Hosts(
            bentoml_home, folder, free_port(), database_url, redis_url, api_settings=api_settings,
            runners=runners,
        )  # fmt: skip
        # The APIs, which started last, end first.
        running.callback(hosts.stop)
        hosts.start_all()
        yield hosts


async def traffic_of_all(hosts: Hosts, stack: AsyncExitStack, pace: Pace = FULL) -> list[Traffic]:
    return [await stack.enter_async_context(traffic(hosts.running[api], pace)) for api in APIS]


async def stored_is_what_was_acknowledged(hosts: Hosts, sent: list[Traffic]) -> None:
    """Each once, whichever host acknowledged it."""
    await until(lambda: not any(segments(hosts.spool(api)) for api in hosts.apis), RECOVERY_SECONDS)
    rows = await asyncio.to_thread(fetch, hosts.database_url, "SELECT id::text FROM predictions")
    acknowledged = [each for of in sent for each in of.acknowledged]
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= {row["id"] for row in rows}
