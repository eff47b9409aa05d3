"""Load on a topology, and what became of each of its requests."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx

from analytics.log.segments import segments
from core.paths import ROOT
from loadtest.headless import FIGURES
from loadtest.outcome import Outcome
from loadtest.traffic import BATCH, COMPARE, PREDICT
from tests.database import fetch, scalar
from tests.prove.topology.nodes import (
    APIS,
    CLIENT,
    INGRESS,
    REQUEST_TIMEOUT_SECONDS,
    Topology,
)
from tests.served.hosts import RECOVERY_SECONDS
from tests.served.traffic import Pace, Traffic, traffic
from tests.waiting import until

USERS = 16
LOADTEST_SECONDS = 10
# Twelve clients: some forty requests a second, beside the eight of `sentiment loadtest`.
PACE = Pace(pause_seconds=0.25)
KEYED_CLIENTS = 3
MAX_REPEATS = 30
# The time-out of nginx's first host, and the next one's answer on a busy machine.
SLOWEST_SECONDS = 10.0 + REQUEST_TIMEOUT_SECONDS
# Texts of a request of tests/served/traffic and of `sentiment loadtest`, each a row of the log.
ROWS = {PREDICT: 1, BATCH: 4, COMPARE: 2}
# The kernel waits longer each time before it sends again; twice as long as a cut is enough.
ARRIVAL_SECONDS = 60.0
# Of include/net/tcp_states.h: closed by this end, and not everything is acknowledged.
FIN_WAIT_1 = "04"
_numbers = itertools.count()


@dataclass
class KeyedTraffic:
    """Clients that send a request with a key until it is answered."""

    name: str = field(default_factory=lambda: uuid4().hex)  # in each of its texts
    acknowledged: list[str] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)  # what the service did with the key
    repeated: Counter[str] = field(default_factory=Counter)  # why
    stopping: bool = False

    async def keep_sending(self, client: httpx.AsyncClient) -> None:
        while not self.stopping:
            body = {"text": f"{self.name}, which was sent as number {next(_numbers)}."}
            headers = {"Idempotency-Key": uuid4().hex}
            reply = await self._answer(client, body, headers)
            self.acknowledged.append(reply.json()["id"])
            self.results[reply.headers["Idempotency-Result"]] += 1
            await asyncio.sleep(PACE.pause_seconds)

    async def _answer(
        self, client: httpx.AsyncClient, body: dict[str, str], headers: dict[str, str]
    ) -> httpx.Response:
        """The answer, asked for until it comes."""
        for _ in range(MAX_REPEATS):
            try:
                reply = await client.post(PREDICT, json=body, headers=headers)
            except httpx.TransportError as error:
                self.repeated[type(error).__name__] += 1
            else:
                if reply.status_code == 200:
                    return reply
                self.repeated[str(reply.status_code)] += 1
            await asyncio.sleep(1)
        raise TimeoutError(f"no answer after {MAX_REPEATS} times: {dict(self.repeated)}")


@dataclass
class Load:
    """What was sent and answered; `outcome` of `sentiment loadtest` is there at the end."""

    counted: Traffic
    keyed: KeyedTraffic
    outcome: Outcome | None = None
    more_rows: int = 0  # than were acknowledged: of requests that nginx sent twice
    repeated_rows: int = 0  # that those could have at most

    def assert_unharmed(self, *, except_analytics: bool = False) -> None:
        """No request failed, no answer was wrong or late."""
        assert self.outcome is not None
        failures = self.outcome.failures
        if except_analytics:
            failures = {
                name: times
                for name, times in failures.items()
                if not (name.startswith("/analytics") and name.endswith("status 503"))
            }
        assert (self.counted.refusals, self.counted.broken, failures) == ([], 0, {})
        assert self.outcome.total.answers > 0
        assert self.counted.slowest_seconds < SLOWEST_SECONDS

    def assert_ready_throughout(self) -> None:
        assert set(self.counted.readiness) == {200}

    def record(self, record_property: Callable[[str, object], None]) -> None:
        assert self.outcome is not None
        answers = self.counted.statuses[200] + len(self.keyed.acknowledged)
        record_property("answered", answers + self.outcome.total.answers)
        record_property("slowest, s", f"{self.counted.slowest_seconds:.1f}")
        record_property("p95 of the load test, ms", self.outcome.total.p95_ms)
        if self.repeated_rows:
            record_property("texts sent twice by nginx", self.repeated_rows)
            record_property("of them stored twice", self.more_rows)
        if self.keyed.repeated:
            record_property("repeated with a key", dict(self.keyed.repeated))


@asynccontextmanager
async def under_load(topology: Topology, folder: Path) -> AsyncIterator[Load]:
    """Load for as long as the block, and LOADTEST_SECONDS at least.

    At the end each acknowledged prediction is stored, once; of the others only those that nginx
    had to send to a second host.
    """
    await until(lambda: nothing_is_on_its_way(topology), ARRIVAL_SECONDS)
    await until(lambda: nothing_waits(topology), RECOVERY_SECONDS)
    rows, tries = await asyncio.to_thread(_rows, topology), len(topology.tries())
    async with AsyncExitStack() as running:
        counted = await running.enter_async_context(traffic(topology.balanced, PACE))
        keyed = await running.enter_async_context(_keyed_traffic(topology))
        load = Load(counted, keyed)
        locust = await _start_loadtest(topology, folder)
        try:
            yield load
            await asyncio.wait_for(locust.wait(), 4 * LOADTEST_SECONDS + 60)
        finally:
            if locust.returncode is None:
                locust.kill()
                await locust.wait()
    load.outcome = Outcome.read(folder / FIGURES)
    answers = {of.name: of.answers for of in load.outcome.endpoints}
    acknowledged = len(counted.acknowledged) + len(keyed.acknowledged)
    acknowledged += sum(ROWS[path] * answers.get(path, 0) for path in (PREDICT, COMPARE))
    await until(lambda: nothing_waits(topology), RECOVERY_SECONDS)
    load.more_rows = await asyncio.to_thread(_rows, topology) - rows - acknowledged
    load.repeated_rows = sum(
        ROWS.get(each.path, 0) for each in topology.tries()[tries:] if each.is_repeated
    )
    assert 0 <= load.more_rows <= load.repeated_rows, (load.more_rows, load.repeated_rows)
    await asyncio.to_thread(_assert_stored_once, topology, load)


@asynccontextmanager
async def _keyed_traffic(topology: Topology) -> AsyncIterator[KeyedTraffic]:
    keyed = KeyedTraffic()
    async with topology.balanced.async_client() as client:
        clients = [asyncio.create_task(keyed.keep_sending(client)) for _ in range(KEYED_CLIENTS)]
        try:
            yield keyed
        finally:
            keyed.stopping = True
            await asyncio.gather(*clients)


async def _start_loadtest(topology: Topology, folder: Path) -> asyncio.subprocess.Process:
    (folder / FIGURES).unlink(missing_ok=True)
    return await asyncio.create_subprocess_exec(
        *topology.network.enter(CLIENT), sys.executable, "-m", "scripts.loadtest",
        "--host", topology.url, "--users", str(USERS), "--seconds", str(LOADTEST_SECONDS),
        "--folder", str(folder), cwd=ROOT,
    )  # fmt: skip


def nothing_is_on_its_way(topology: Topology) -> bool:
    """Whether no node still has to get what nginx sent it before it gave up.

    A request to a node that was cut arrives when the kernel sends it again, after the cut, and is
    answered and stored then: a row of the load before.
    """
    table = topology.network.nodes[INGRESS].run("cat", "/proc/net/tcp")
    return not any(line.split()[3] == FIN_WAIT_1 for line in table.splitlines()[1:])


def nothing_waits(topology: Topology) -> bool:
    return not any(segments(topology.hosts.spool(api)) for api in APIS)


def _rows(topology: Topology) -> int:
    count = scalar(topology.hosts.database_url, "SELECT count(*) FROM predictions")
    return int(count)


def _assert_stored_once(topology: Topology, load: Load) -> None:
    url = topology.hosts.database_url
    stored = {row["id"] for row in fetch(url, "SELECT id::text FROM predictions")}
    for acknowledged in (load.counted.acknowledged, load.keyed.acknowledged):
        assert len(acknowledged) == len(set(acknowledged))
        assert set(acknowledged) <= stored
    keyed = f"SELECT id::text FROM predictions WHERE text LIKE '{load.keyed.name}%'"
    assert {row["id"] for row in fetch(url, keyed)} == set(load.keyed.acknowledged)
