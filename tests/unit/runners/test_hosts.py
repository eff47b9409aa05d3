"""A runner on several hosts: who is asked, who takes over, and who is there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection

import aiohttp
import pytest
from bentoml.exceptions import ServiceUnavailable

from core.types import Classification, DesiredModel, RunnerDescription, Sentiment
from runners.hosts import LOOK_UP_SECONDS, RunnerHosts, addresses_of
from runners.lanes import Lane
from tests.unit.fakes import counter
from tests.waiting import until

NAME = "http://runners:3000"


class FakeHost:
    """A runner host that answers at once, fails, or hangs."""

    def __init__(self, url: str, tokens_per_second: float | None = 1000.0) -> None:
        self.url = url
        self.pace = tokens_per_second
        self.error: Exception | None = None
        self.hangs = False
        self.closed = False
        self.asked = 0
        self.wishes: list[DesiredModel] = []

    async def _answer(self) -> None:
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()

    async def classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        assert (timeout_seconds > 0, lane) == (True, "interactive")
        self.asked += 1
        await self._answer()
        return [
            Classification(self.url, "fake", {"positive": 1.0}, 3, truncated=False) for _ in texts
        ]

    async def load(self, tag: str | None, number: int) -> RunnerDescription:
        self.wishes.append(DesiredModel(tag, number))
        return await self.describe()

    async def describe(self) -> RunnerDescription:
        await self._answer()
        observed_generation = self.wishes[-1].generation if self.wishes else 0
        labels: tuple[Sentiment, ...] = ("negative", "positive")
        return RunnerDescription(
            "v1", self.url, "fake", labels, self.pace, observed_generation=observed_generation
        )

    async def close(self) -> None:
        self.closed = True


class Machines:
    """What a name stands for, and the hosts there."""

    def __init__(self, *urls: str, look_up_seconds: float = LOOK_UP_SECONDS) -> None:
        self.urls: Collection[str] = urls
        self.error: Exception | None = None
        self.hosts = {url: FakeHost(url) for url in urls}
        self.runner = RunnerHosts(
            "v1", [NAME], self.connect, self.addresses, look_up_seconds=look_up_seconds
        )

    async def connect(self, url: str) -> FakeHost:
        return self.hosts.setdefault(url, FakeHost(url))

    async def addresses(self, url: str) -> Collection[str]:
        assert url == NAME
        if self.error is not None:
            raise self.error
        return self.urls

    async def classify(self) -> str:
        [answer] = await self.runner.classify(["a text"], 10.0, "interactive")
        return answer.revision


@pytest.fixture
async def machines() -> Machines:
    made = Machines("a", "b", "c")
    await made.runner.describe()
    return made


async def test_together_they_are_one_runner(machines: Machines) -> None:
    description = await machines.runner.describe()
    assert (description.hosts, description.tokens_per_second) == (3, 3000.0)
    assert description.revision == "a"
    machines.hosts["b"].error = ConnectionRefusedError()
    description = await machines.runner.describe()
    assert (description.hosts, description.tokens_per_second) == (2, 2000.0)
    for host in machines.hosts.values():
        host.pace = None
    assert (await machines.runner.describe()).tokens_per_second is None


async def test_a_wish_reaches_the_hosts_that_have_not_heard_of_it(machines: Machines) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["b"].wishes.append(desired)
    description = await machines.runner.describe()
    assert not description.converged
    assert not description.has_observed(desired)
    assert description.latest_generation == desired.generation
    assert (await machines.runner.load(*desired)).has_observed(desired)
    assert {url: host.wishes for url, host in machines.hosts.items()} == {
        url: [desired] for url in "abc"
    }


async def test_a_host_that_is_away_hears_of_a_wish_later(machines: Machines) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["b"].error = ConnectionRefusedError()
    await machines.runner.describe()
    assert (await machines.runner.load(*desired)).has_observed(desired)
    machines.hosts["b"].error = None
    assert not (await machines.runner.describe()).has_observed(desired)
    assert (await machines.runner.load(*desired)).has_observed(desired)


async def test_idle_hosts_take_turns(machines: Machines) -> None:
    assert Counter([await machines.classify() for _ in range(9)]) == {"a": 3, "b": 3, "c": 3}


async def test_who_has_less_to_do_for_its_pace_is_asked(machines: Machines) -> None:
    machines.hosts["a"].pace = 10_000.0
    await machines.runner.describe()
    for host in machines.hosts.values():
        host.hangs = True
    calls = [asyncio.create_task(machines.classify()) for _ in range(24)]
    await until(lambda: sum(host.asked for host in machines.hosts.values()) == 24)
    asked = {url: host.asked for url, host in machines.hosts.items()}
    assert asked["a"] == pytest.approx(20, abs=1)
    assert asked["b"] == pytest.approx(asked["c"], abs=1)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    "error",
    [aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError(), aiohttp.ClientOSError()],
)
async def test_another_host_takes_over_from_one_that_is_gone(
    machines: Machines, error: Exception
) -> None:
    before = counter("runner_failovers_total", version="v1")
    machines.hosts["a"].error = machines.hosts["b"].error = error
    assert [await machines.classify() for _ in range(20)] == ["c"] * 20
    # Who is gone is not asked each time.
    assert machines.hosts["a"].asked == machines.hosts["b"].asked == 1
    assert counter("runner_failovers_total", version="v1") - before == 2
    machines.hosts["c"].error = error
    with pytest.raises(type(error)):
        await machines.classify()
    with pytest.raises(aiohttp.ClientConnectionError, match="none of 3"):
        await machines.runner.describe()
    # All are asked again as soon as they say who they are.
    for host in machines.hosts.values():
        host.error = None
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(3)} == {"a", "b", "c"}


async def test_what_a_host_answers_is_the_answer(machines: Machines) -> None:
    machines.hosts["a"].error = ServiceUnavailable("overloaded")
    with pytest.raises(ServiceUnavailable):
        await machines.classify()
    assert [await machines.classify() for _ in range(2)] == ["b", "c"]


async def test_calls_are_taken_back_from_a_host_that_hangs(machines: Machines) -> None:
    machines.hosts["a"].hangs = True
    call = asyncio.create_task(machines.classify())
    await until(lambda: machines.hosts["a"].asked == 1)
    # Once may be a pause.
    assert (await machines.runner.describe()).hosts == 2
    assert not call.done()
    await machines.runner.describe()
    assert await call in {"b", "c"}
    assert {await machines.classify() for _ in range(4)} == {"b", "c"}


async def test_calls_of_the_only_host_are_left_to_it() -> None:
    alone = Machines("a")
    await alone.runner.describe()
    alone.hosts["a"].hangs = True
    call = asyncio.create_task(alone.classify())
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectionError):
            await alone.runner.describe()
    assert not call.done()
    call.cancel()


async def test_a_name_is_not_looked_up_all_the_time(machines: Machines) -> None:
    machines.urls = ["b", "c", "d"]
    assert (await machines.runner.describe()).hosts == 3
    assert "d" not in machines.hosts


async def test_hosts_come_and_go_with_the_addresses_of_their_name() -> None:
    machines = Machines("a", "b", "c", look_up_seconds=0.0)
    await machines.runner.describe()
    machines.hosts["a"].hangs = True
    call = asyncio.create_task(machines.classify())
    await until(lambda: machines.hosts["a"].asked == 1)
    machines.urls = ["b", "c", "d"]
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(6)} == {"b", "c", "d"}
    # Who left still finishes what it was asked.
    assert not machines.hosts["a"].closed
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await machines.runner.describe()
    assert machines.hosts["a"].closed
    # A name server that is down changes nothing.
    machines.error = OSError("no name server")
    assert (await machines.runner.describe()).hosts == 3
    await machines.runner.close()
    assert all(host.closed for host in machines.hosts.values())


async def test_before_any_host_is_known_there_is_none() -> None:
    nobody = Machines()
    nobody.error = OSError("no such name")
    with pytest.raises(aiohttp.ClientConnectionError):
        await nobody.runner.describe()
    with pytest.raises(aiohttp.ClientConnectionError, match="no host"):
        await nobody.classify()


@pytest.mark.parametrize(
    "url",
    ["http://10.1.2.3:3000", "http://[fd00::7]:3000", "https://runners:3000", "file:///tmp/a.sock"],
)
async def test_what_is_no_name_stands_for_itself(url: str) -> None:
    assert await addresses_of(url) == [url]


async def test_a_name_stands_for_its_addresses() -> None:
    found = await addresses_of("http://localhost:3000")
    assert "http://127.0.0.1:3000" in found
    assert set(found) <= {"http://127.0.0.1:3000", "http://[::1]:3000"}
    with pytest.raises(OSError, match=r".+"):
        await addresses_of("http://no.such.name.invalid:3000")
