"""A runner on many hosts: each call goes to one that is up and has time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from core.errors import RunnerUnavailable
from core.types import Classification, DesiredModel, LongText, RunnerDescription
from runners.calls import MAX_LOST, RunnerCalls
from runners.client import DESCRIBE_TIMEOUT_SECONDS
from runners.host_health import FAILING_AFTER
from runners.hosts import RESOLVE_EVERY_SECONDS, RunnerHosts, resolve
from runners.lanes import Lane
from runners.transport import CallLost
from tests.unit.fakes import counter, runner_description
from tests.waiting import until

NAME = "http://runners:3000"


class FakeHost:
    """A runner host that answers at once, fails, or hangs."""

    def __init__(self, url: str, tokens_per_second: float | None = 1000.0) -> None:
        self.url = self.revision = url
        self.tokens_per_second = tokens_per_second
        self.error: Exception | None = None
        self.hangs = False
        self.has_model = True
        self.closed = False
        self.calls = 0
        self.requested: list[DesiredModel] = []
        self.before_description: Callable[[], Awaitable[None]] | None = None

    async def _answer(self) -> None:
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()

    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",  # noqa: ARG002  the protocol has it
    ) -> list[Classification]:
        assert (timeout_seconds > 0, lane) == (True, "interactive")
        self.calls += 1
        await self._answer()
        return [
            Classification(self.revision, "fake", {"positive": 1.0}, 3, truncated=False)
            for _ in texts
        ]

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        self.requested.append(desired)
        return await self.describe()

    async def describe(self) -> RunnerDescription:
        if self.before_description is not None:
            await self.before_description()
        await self._answer()
        observed = self.requested[-1] if self.requested else DesiredModel(None, 0)
        return runner_description(
            revision=self.revision,
            tokens_per_second=self.tokens_per_second,
            observed_generation=observed.generation,
            tag=observed.tag or "configured:1",
            load_error=None if self.has_model else "configured:1: damaged",
            has_model=self.has_model,
        )

    def hang_up(self) -> None:
        self.hung_up = True

    async def close(self) -> None:
        self.closed = True


class Machines:
    """The addresses of a name, and the hosts there."""

    def __init__(self, *urls: str, resolve_every_seconds: float = RESOLVE_EVERY_SECONDS) -> None:
        self.urls: Collection[str] = urls
        self.error: Exception | None = None
        self.hosts = {url: FakeHost(url) for url in urls}
        self.runner = RunnerHosts(
            "v1", [NAME], self.connect, self.resolve, resolve_every_seconds=resolve_every_seconds
        )
        self.calls = RunnerCalls("v1", self.runner, timeout_seconds=10.0)

    def connect(self, url: str) -> FakeHost:
        return self.hosts.setdefault(url, FakeHost(url))

    async def resolve(self, url: str) -> Collection[str]:
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


async def test_hosts_are_described_as_one_runner_with_the_sum_of_their_throughputs(
    machines: Machines,
) -> None:
    description = await machines.runner.describe()
    assert (description.hosts, description.tokens_per_second) == (3, 3000.0)
    assert description.revision == "a"
    machines.hosts["b"].error = ConnectionRefusedError()
    description = await machines.runner.describe()
    assert (description.hosts, description.tokens_per_second) == (2, 2000.0)
    for host in machines.hosts.values():
        host.tokens_per_second = None
    assert (await machines.runner.describe()).tokens_per_second is None


async def test_load_request_reaches_the_hosts_that_have_not_observed_it(machines: Machines) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["b"].requested.append(desired)
    description = await machines.runner.describe()
    assert not description.converged
    assert not description.has_observed(desired)
    assert description.latest_generation == desired.generation
    assert (await machines.runner.load(desired)).has_observed(desired)
    assert {url: host.requested for url, host in machines.hosts.items()} == {
        url: [desired] for url in "abc"
    }


async def test_load_request_does_not_wait_for_a_host_that_is_silent(machines: Machines) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["a"].hangs = True
    for _ in range(2):
        started = asyncio.get_running_loop().time()
        await machines.runner.describe()
        description = await machines.runner.load(desired)
        assert asyncio.get_running_loop().time() - started < DESCRIBE_TIMEOUT_SECONDS
        assert description.has_observed(desired)
    assert machines.hosts["a"].requested == []
    assert [machines.hosts[url].requested for url in "bc"] == [[desired], [desired]]


async def test_host_that_falls_silent_when_asked_to_load_keeps_no_other_from_it(
    machines: Machines,
) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["a"].hangs = True
    started = asyncio.get_running_loop().time()
    description = await machines.runner.load(desired)
    assert asyncio.get_running_loop().time() - started < DESCRIBE_TIMEOUT_SECONDS
    assert (description.hosts, description.has_observed(desired)) == (2, True)
    assert [machines.hosts[url].requested for url in "bc"] == [[desired], [desired]]


async def test_load_request_reaches_a_host_that_was_down_once_it_is_back(
    machines: Machines,
) -> None:
    desired = DesiredModel("m:2", 5)
    machines.hosts["b"].error = ConnectionRefusedError()
    await machines.runner.describe()
    assert (await machines.runner.load(desired)).has_observed(desired)
    machines.hosts["b"].error = None
    assert not (await machines.runner.describe()).has_observed(desired)
    assert (await machines.runner.load(desired)).has_observed(desired)


async def test_host_without_a_model_gets_no_call_and_may_be_given_another(
    machines: Machines,
) -> None:
    machines.hosts["a"].has_model = False
    description = await machines.runner.describe()
    assert (description.revision, description.has_model) == ("b", True)
    assert description.load_error == "configured:1: damaged"
    assert {await machines.classify() for _ in range(6)} == {"b", "c"}
    desired = DesiredModel("m:2", 5)
    await machines.runner.load(desired)
    assert machines.hosts["a"].requested == [desired]
    machines.hosts["a"].has_model = True
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(6)} == {"a", "b", "c"}
    for host in machines.hosts.values():
        host.has_model = False
    assert not (await machines.runner.describe()).has_model


async def test_idle_hosts_are_called_in_turn(machines: Machines) -> None:
    assert Counter([await machines.classify() for _ in range(9)]) == {"a": 3, "b": 3, "c": 3}


async def test_calls_are_shared_out_in_proportion_to_throughput(machines: Machines) -> None:
    machines.hosts["a"].tokens_per_second = 10_000.0
    await machines.runner.describe()
    for host in machines.hosts.values():
        host.hangs = True
    calls = [asyncio.create_task(machines.classify()) for _ in range(24)]
    await until(lambda: sum(host.calls for host in machines.hosts.values()) == 24)
    shares = {url: host.calls for url, host in machines.hosts.items()}
    assert shares["a"] == pytest.approx(20, abs=1)
    assert shares["b"] == pytest.approx(shares["c"], abs=1)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    "error",
    [aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError(), aiohttp.ClientOSError()],
)
async def test_call_fails_over_to_another_host_when_its_connection_breaks(
    machines: Machines, error: Exception
) -> None:
    before = counter("runner_failovers_total", version="v1")
    machines.hosts["a"].error = machines.hosts["b"].error = error
    assert [await machines.classify() for _ in range(20)] == ["c"] * 20
    # A host that is down is not called each time.
    assert machines.hosts["a"].calls == machines.hosts["b"].calls == 1
    assert counter("runner_failovers_total", version="v1") - before == 2
    machines.hosts["c"].error = error
    with pytest.raises(type(error)):
        await machines.classify()
    with pytest.raises(aiohttp.ClientConnectionError, match="none of 3"):
        await machines.runner.describe()
    # All hosts are called again as soon as they answer a probe.
    for host in machines.hosts.values():
        host.error = None
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(3)} == {"a", "b", "c"}


async def test_texts_that_hosts_may_have_died_of_are_not_sent_to_all_of_them() -> None:
    machines = Machines(*"abcdefgh")
    await machines.runner.describe()
    for host in machines.hosts.values():
        host.error = CallLost("it hung up")
    with pytest.raises(RunnerUnavailable) as given_up:
        await machines.calls.send(["a text"], "interactive", 10.0)
    assert sum(host.calls for host in machines.hosts.values()) == MAX_LOST
    assert max(host.calls for host in machines.hosts.values()) == 1
    assert given_up.value.lost == MAX_LOST


async def test_error_reply_of_a_host_does_not_fail_over(machines: Machines) -> None:
    machines.hosts["a"].error = ServiceUnavailable("overloaded")
    with pytest.raises(ServiceUnavailable):
        await machines.classify()
    assert [await machines.classify() for _ in range(2)] == ["b", "c"]


async def test_host_that_fails_gets_calls_after_the_others(machines: Machines) -> None:
    """It is done at once with all that it gets: it would look idle."""
    for url in "bc":
        machines.hosts[url].hangs = True
    machines.hosts["a"].error = BentoMLException("its engine is broken")
    calls = [asyncio.create_task(machines.classify()) for _ in range(30)]
    await until(lambda: sum(host.calls for host in machines.hosts.values()) == 30)
    assert machines.hosts["a"].calls <= 10 + FAILING_AFTER
    before = machines.hosts["a"].calls
    more = [asyncio.create_task(machines.classify()) for _ in range(30)]
    await until(lambda: sum(host.calls for host in machines.hosts.values()) == 60)
    assert machines.hosts["a"].calls == before
    for call in (*calls, *more):
        call.cancel()
    await asyncio.gather(*calls, *more, return_exceptions=True)


async def test_texts_that_a_host_refuses_keep_no_calls_from_it(machines: Machines) -> None:
    """A model may compute no number for a text, and the queue of large requests may be full."""
    for error in [BentoMLException("500"), ServiceUnavailable("full")] * 4:
        machines.hosts["a"].error = error
        for _ in range(3):
            with suppress(type(error)):
                await machines.classify()
        machines.hosts["a"].error = None
        assert {await machines.classify() for _ in range(3)} == {"a", "b", "c"}


async def test_settled_host_whose_calls_are_lost_lets_none_with_another_model_settle() -> None:
    """A lost call is seen between the answer of a host and that of the last one."""
    machines = Machines("a", "b", resolve_every_seconds=0.0)
    await machines.runner.describe()
    await machines.runner.load(DesiredModel("m:2", 5))
    machines.urls = ["a", "b", "c"]
    machines.connect("c").revision = "old"
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(6)} == {"a", "b"}

    async def lose_calls() -> None:
        for url in "ab":
            host = machines.hosts[url]
            host.error = CallLost("it hung up")
            with pytest.raises(CallLost):
                await machines.runner.classify(["a text"], 10.0, "interactive")
            host.error = None

    machines.hosts["c"].before_description = lose_calls
    await machines.runner.describe()
    machines.hosts["c"].before_description = None
    assert {await machines.classify() for _ in range(6)} == {"a", "b"}


async def test_host_that_comes_is_called_once_it_has_the_model_of_the_others() -> None:
    machines = Machines("a", "b", resolve_every_seconds=0.0)
    desired = DesiredModel("m:2", 5)
    await machines.runner.describe()
    await machines.runner.load(desired)
    machines.urls = ["a", "b", "c"]
    machines.connect("c").revision = "old"
    description = await machines.runner.describe()
    assert not description.has_observed(desired)  # so it is asked to load it
    assert description.revision == "a"
    assert {await machines.classify() for _ in range(9)} == {"a", "b"}
    # Not either where the others are gone, until a probe has told so.
    for url in "ab":
        machines.hosts[url].error = aiohttp.ServerDisconnectedError()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await machines.classify()
    assert machines.hosts["c"].calls == 0
    for url in "ab":
        machines.hosts[url].error = None
    await machines.runner.describe()
    await machines.runner.load(desired)
    assert {await machines.classify() for _ in range(9)} == {"a", "b", "old"}


async def test_hosts_are_called_while_a_model_is_replaced_on_one_after_the_other(
    machines: Machines,
) -> None:
    machines.hosts["b"].requested.append(DesiredModel("m:2", 5))
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(9)} == {"a", "b", "c"}


async def test_only_host_that_is_left_is_called_whatever_it_has(machines: Machines) -> None:
    for url in "ab":
        machines.hosts[url].requested.append(DesiredModel("m:2", 5))
        machines.hosts[url].error = ConnectionRefusedError()
    await machines.runner.describe()
    assert await machines.classify() == "c"


async def test_call_fails_over_when_its_host_misses_two_probes(machines: Machines) -> None:
    machines.hosts["a"].hangs = True
    call = asyncio.create_task(machines.calls.send(["a text"], "interactive", 10.0))
    await until(lambda: machines.hosts["a"].calls == 1)
    # One missed probe may be a pause.
    assert (await machines.runner.describe()).hosts == 2
    assert not call.done()
    await machines.runner.describe()
    [answer] = await call
    assert answer.revision in {"b", "c"}
    assert {await machines.classify() for _ in range(4)} == {"b", "c"}


async def test_lost_call_of_a_host_that_answers_cancels_no_other_one(machines: Machines) -> None:
    for host in machines.hosts.values():
        host.hangs = True
    calls = [asyncio.create_task(machines.classify()) for _ in machines.hosts]
    await until(lambda: all(host.calls == 1 for host in machines.hosts.values()))
    for host in machines.hosts.values():
        host.hangs = False
    machines.hosts["a"].error = CallLost("its own connection broke")
    with pytest.raises(CallLost):
        await machines.classify()
    machines.hosts["a"].error = None
    # The hosts are described as they answered last.
    await machines.runner.load(DesiredModel(None, 0))
    assert (await asyncio.wait(calls, timeout=0.05))[0] == set()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_of_the_only_host_are_not_cancelled() -> None:
    alone = Machines("a")
    await alone.runner.describe()
    alone.hosts["a"].hangs = True
    call = asyncio.create_task(alone.classify())
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectionError):
            await alone.runner.describe()
    assert not call.done()
    call.cancel()


async def test_name_is_not_looked_up_at_each_probe(machines: Machines) -> None:
    machines.urls = ["b", "c", "d"]
    assert (await machines.runner.describe()).hosts == 3
    assert "d" not in machines.hosts


async def test_hosts_are_added_and_closed_as_the_addresses_of_their_name_change() -> None:
    machines = Machines("a", "b", "c", resolve_every_seconds=0.0)
    await machines.runner.describe()
    machines.hosts["a"].hangs = True
    call = asyncio.create_task(machines.classify())
    await until(lambda: machines.hosts["a"].calls == 1)
    machines.urls = ["b", "c", "d"]
    await machines.runner.describe()
    assert {await machines.classify() for _ in range(6)} == {"b", "c", "d"}
    # A host that left finishes its calls first.
    assert not machines.hosts["a"].closed
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await machines.runner.describe()
    assert machines.hosts["a"].closed
    # The hosts stay when the name server is down.
    machines.error = OSError("no name server")
    assert (await machines.runner.describe()).hosts == 3
    await machines.runner.close()
    assert all(host.closed for host in machines.hosts.values())


async def test_name_that_is_unknown_hides_no_host_of_another_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a container that is stopped, beside one that runs."""
    urls = {"http://one:3000": ["a"], "http://two:3000": ["b"]}
    stopped = {"http://two:3000"}
    hosts: dict[str, FakeHost] = {}

    async def resolve_some(url: str) -> Collection[str]:
        if url in stopped:
            raise OSError("no such name")
        return urls[url]

    runner = RunnerHosts(
        "v1",
        [*urls],
        lambda url: hosts.setdefault(url, FakeHost(url)),
        resolve_some,
        resolve_every_seconds=0.0,
    )
    for _ in range(3):
        assert (await runner.describe()).hosts == 1
    assert caplog.text.count("http://two:3000 cannot be looked up: OSError: no such name") == 1
    stopped.clear()
    assert (await runner.describe()).hosts == 2
    # It comes back at another address while the name of the other one is missing.
    stopped.add("http://one:3000")
    urls["http://two:3000"] = ["c"]
    await runner.describe()
    assert {host.url for host in hosts.values() if not host.closed} >= {"a", "c"}
    assert (await runner.describe()).hosts == 2


async def test_call_fails_while_no_host_is_known() -> None:
    unknown = Machines()
    unknown.error = OSError("no such name")
    with pytest.raises(aiohttp.ClientConnectionError):
        await unknown.runner.describe()
    with pytest.raises(aiohttp.ClientConnectionError, match="no host is known at"):
        await unknown.classify()


@pytest.mark.parametrize(
    "url",
    ["http://10.1.2.3:3000", "http://[fd00::7]:3000", "https://runners:3000", "file:///tmp/a.sock"],
)
async def test_url_without_a_name_to_look_up_resolves_to_itself(url: str) -> None:
    assert await resolve(url) == [url]


async def test_name_resolves_to_its_addresses() -> None:
    found = await resolve("http://localhost:3000")
    assert "http://127.0.0.1:3000" in found
    assert set(found) <= {"http://127.0.0.1:3000", "http://[::1]:3000"}
    with pytest.raises(OSError, match=r".+"):
        await resolve("http://no.such.name.invalid:3000")
