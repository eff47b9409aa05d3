"""A runner seen from the API: its failures have one name, and its readiness is known."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.request_context import deadline_in
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners.admission import QueueBounds
from runners.client import READY_POLL_SECONDS, RunnerClient
from runners.lanes import INTERACTIVE_TOKENS, Lane
from tests.unit.fakes import counter

WAIT_SECONDS = 10.0
BOUNDS = QueueBounds(texts=100, tokens=10_000, seconds={"interactive": 1.0, "bulk": 5.0})


class FakeRunnerApi:
    """A runner that answers, or fails as a served one does."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.errors: list[Exception] = []
        self.hangs = False
        self.revision = "r"
        self.answers_as: str | None = None
        self.tokens_per_second: float | None = None
        self.calls: list[list[str]] = []
        self.lanes: list[Lane] = []
        self.timeouts: list[float] = []
        self.wishes: list[DesiredModel] = []

    async def classify(
        self, texts: Sequence[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        assert 0 < timeout_seconds <= WAIT_SECONDS
        if self.error:
            raise self.error
        if self.errors:
            raise self.errors.pop(0)
        if self.hangs:
            await asyncio.Event().wait()
        self.calls.append(list(texts))
        self.lanes.append(lane)
        self.timeouts.append(timeout_seconds)
        return [
            Classification(
                self.answers_as or self.revision, "fake", {"positive": 1.0}, 3, truncated=False
            )
            for _ in texts
        ]

    async def load(self, tag: str | None, number: int) -> RunnerDescription:
        self.wishes.append(DesiredModel(tag, number))
        return await self.describe()

    async def describe(self) -> RunnerDescription:
        if self.error:
            raise self.error
        observed_generation = self.wishes[-1].generation if self.wishes else 0
        return RunnerDescription(
            "v1",
            self.revision,
            "fake",
            ("negative", "positive"),
            tokens_per_second=self.tokens_per_second,
            observed_generation=observed_generation,
        )


def client(api: FakeRunnerApi, version: Version = "v1") -> RunnerClient:
    return RunnerClient(version, api, BOUNDS, timeout_seconds=WAIT_SECONDS)


@pytest.fixture
def api() -> FakeRunnerApi:
    return FakeRunnerApi()


@pytest.fixture
async def watching(api: FakeRunnerApi) -> AsyncIterator[RunnerClient]:
    """A client whose runner has not started yet."""
    api.error = ConnectionRefusedError()
    runner = client(api)
    runner.start()
    yield runner
    await runner.stop()


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [
        BentoMLException("no"),
        ServiceUnavailable("overloaded"),
        aiohttp.ServerDisconnectedError(),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
)
async def test_every_failure_of_a_runner_is_told_as_unavailable(
    api: FakeRunnerApi, error: Exception
) -> None:
    runner = client(api)
    await runner.refresh()
    assert runner.ready

    api.error = error
    with pytest.raises(RunnerUnavailable, match="v1 cannot answer now; try again") as caught:
        await runner.classify(["a"])
    assert caught.value.__cause__ is error
    await runner.refresh()
    assert not runner.ready
    # What it held is still known, so cached answers of it are still found.
    assert runner.description().revision == "r"

    api.error = None
    await runner.refresh()
    assert runner.ready


async def test_a_runner_that_breaks_off_is_asked_again(api: FakeRunnerApi) -> None:
    api.errors = [aiohttp.ServerDisconnectedError()]
    assert len(await client(api).classify(["a"])) == 1
    # So do all connections that were kept to it.
    api.errors = [aiohttp.ServerDisconnectedError()] * 6
    assert len(await client(api).classify(["a"])) == 1
    api.errors = [aiohttp.ServerDisconnectedError()] * 100
    with pytest.raises(RunnerUnavailable):
        await client(api).classify(["a"])


async def test_one_that_refuses_is_not(api: FakeRunnerApi) -> None:
    api.errors = [ServiceUnavailable("overloaded")]
    with pytest.raises(RunnerUnavailable):
        await client(api).classify(["a"])
    assert api.calls == []


async def test_one_that_never_answers_is_waited_for_until_the_deadline(
    api: FakeRunnerApi,
) -> None:
    api.hangs = True
    hurried = RunnerClient("v1", api, BOUNDS, timeout_seconds=0.05)
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(RunnerUnavailable):
            await hurried.classify(["a"])


async def test_a_batch_is_one_call(api: FakeRunnerApi) -> None:
    assert len(await client(api).classify(("a", "b"))) == 2
    assert api.calls == [["a", "b"]]


async def test_a_large_batch_does_not_share_a_call_nor_wait_for_one(api: FakeRunnerApi) -> None:
    runner = client(api)
    api.hangs = True
    waiting = [asyncio.create_task(runner.classify([str(number)])) for number in range(20)]
    await asyncio.sleep(0)
    api.hangs = False
    large = ["x" * 1_000] * (1 + INTERACTIVE_TOKENS // 250)
    assert len(await runner.classify(large)) == len(large)
    assert (large, "bulk") in zip(api.calls, api.lanes, strict=True)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_too_much_is_refused_and_says_when_to_try_again(api: FakeRunnerApi) -> None:
    runner = client(api)
    api.hangs = True
    waiting = [asyncio.create_task(runner.classify(["x"])) for _ in range(BOUNDS.texts)]
    await asyncio.sleep(0)
    before = counter("shed_requests_total", reason="queue_size")
    assert runner.is_full
    with pytest.raises(Overloaded, match="v1 has too much to do") as caught:
        await runner.classify(["x"])
    assert caught.value.retry_after_seconds == 1
    assert counter("shed_requests_total", reason="queue_size") == before + 1
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not runner.is_full
    api.hangs = False
    await runner.classify(["x"])


async def test_who_has_less_time_than_the_wait_is_told_so_at_once(
    watching: RunnerClient, api: FakeRunnerApi
) -> None:
    api.tokens_per_second, api.error, api.hangs = 100.0, None, True
    await until(lambda: watching.ready)
    waiting = asyncio.create_task(watching.classify(["some words that are waited for"]))
    await asyncio.sleep(0)
    before = counter("shed_requests_total", reason="deadline")
    async with deadline_in(0.001):
        with pytest.raises(DeadlineExceeded, match="v1 would not have answered in time"):
            watching.check(["x"])
    assert counter("shed_requests_total", reason="deadline") == before + 1
    watching.check(["x"])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_large_batch_is_not_computed_past_the_deadline_of_its_request(
    api: FakeRunnerApi,
) -> None:
    async with deadline_in(1.0):
        await client(api).classify(["x" * 1_000] * 10)
    assert api.timeouts[-1] <= 1.0


async def test_a_mistake_of_ours_is_not_told_as_an_outage(api: FakeRunnerApi) -> None:
    api.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await client(api).classify(["a"])


async def test_before_its_first_answer_a_runner_is_still_loading(api: FakeRunnerApi) -> None:
    api.error = ConnectionRefusedError()
    runner = client(api, "v2")
    await runner.refresh()
    assert not runner.ready
    with pytest.raises(RunnerUnavailable, match="v2 is still loading"):
        runner.description()


async def test_a_request_to_a_process_that_has_just_started_waits_to_hear(
    api: FakeRunnerApi, watching: RunnerClient
) -> None:
    waiting = asyncio.create_task(watching.wait_until_described())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    api.error = None
    assert (await waiting).revision == "r"


async def test_a_runner_that_comes_up_is_noticed(
    api: FakeRunnerApi, watching: RunnerClient
) -> None:
    await asyncio.sleep(0)
    assert not watching.ready
    api.error = None
    await until(lambda: watching.ready)
    assert watching.description() == RunnerDescription("v1", "r", "fake", ("negative", "positive"))
    assert counter("runner_up", version="v1") == 1


async def test_one_that_is_gone_is_noticed_too(api: FakeRunnerApi) -> None:
    runner = client(api)
    await runner.refresh()
    api.error = ConnectionRefusedError()
    await runner.refresh()
    assert not runner.ready
    assert counter("runner_up", version="v1") == 0


async def test_new_weights_are_noticed(api: FakeRunnerApi) -> None:
    runner = client(api)
    await runner.refresh()
    api.revision = "r2"
    await runner.refresh()
    assert runner.description().revision == "r2"
    told = [
        counter("model_revision_info", version="v1", revision=revision, engine="fake")
        for revision in ("r", "r2")
    ]
    assert told == [0, 1]


async def test_stopping_a_client_that_never_started_is_no_error(api: FakeRunnerApi) -> None:
    runner = client(api)
    await runner.stop()
    assert runner.ready is False


async def test_a_wish_is_told_once_and_again_after_the_runner_has_forgotten_it(
    api: FakeRunnerApi,
) -> None:
    runner = client(api)
    await runner.refresh()
    assert api.wishes == []
    runner.set_desired(DesiredModel("m:2", 7), -math.inf)
    for _ in range(3):
        await runner.refresh()
    assert api.wishes == [DesiredModel("m:2", 7)]
    api.wishes.clear()  # it was started anew
    await runner.refresh()
    assert api.wishes == [DesiredModel("m:2", 7)]


async def test_a_wish_reaches_a_runner_that_comes_up_later(
    api: FakeRunnerApi, watching: RunnerClient
) -> None:
    watching.set_desired(DesiredModel(None, 4), -math.inf)
    api.error = None
    await until(lambda: api.wishes == [DesiredModel(None, 4)])


async def test_who_knows_of_an_earlier_wish_than_the_runner_does_keeps_it_to_itself(
    api: FakeRunnerApi,
) -> None:
    behind, ahead = client(api), client(api)
    behind.set_desired(DesiredModel("m:1", 6), time.monotonic())
    ahead.set_desired(DesiredModel("m:2", 7), time.monotonic())
    for _ in range(3):
        await ahead.refresh()
        await behind.refresh()
    assert api.wishes == [DesiredModel("m:2", 7)]


async def test_what_the_database_said_before_the_latest_of_later_wishes_counts_no_more(
    api: FakeRunnerApi,
) -> None:
    runner = client(api)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    api.wishes.append(DesiredModel("m:2", 7))
    await runner.refresh()
    runner.set_desired(DesiredModel("m:2", 7), time.monotonic())
    api.wishes.append(DesiredModel("m:3", 8))
    await runner.refresh()
    assert api.wishes[-1] == DesiredModel("m:3", 8)


async def test_what_the_database_says_after_a_later_wish_was_seen_counts(
    api: FakeRunnerApi,
) -> None:
    api.wishes.append(DesiredModel("m:2", 7))
    runner = client(api)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    await runner.refresh()
    assert api.wishes == [DesiredModel("m:2", 7)]
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    for _ in range(3):
        await runner.refresh()
    assert api.wishes == [DesiredModel("m:2", 7), DesiredModel("m:1", 6)]


async def test_an_answer_of_other_weights_is_looked_into_at_once(
    api: FakeRunnerApi, watching: RunnerClient
) -> None:
    api.error = None
    await until(lambda: watching.ready)
    api.revision = "r2"
    await watching.classify(["one"])
    started = asyncio.get_running_loop().time()
    await until(lambda: watching.description().revision == "r2")
    assert asyncio.get_running_loop().time() - started < READY_POLL_SECONDS
