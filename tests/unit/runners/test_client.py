"""The client of a runner: admission, failures, and the runner's state."""

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
from core.types import Classification, DesiredModel, LongText, RunnerDescription, Version
from runners.admission import QueueBounds
from runners.client import READY_POLL_SECONDS, RunnerClient
from runners.lanes import INTERACTIVE_TOKENS, Lane
from tests.unit.fakes import counter, runner_description

WAIT_SECONDS = 10.0
BOUNDS = QueueBounds(texts=100, tokens=10_000, seconds={"interactive": 1.0, "bulk": 5.0})


class FakeBackend:
    """A runner that answers, hangs or fails."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.errors: list[Exception] = []
        self.hangs = False
        self.revision = "r"
        self.engine = "fake"
        self.answers_as: str | None = None
        self.tokens_per_second: float | None = None
        self.calls: list[list[str]] = []
        self.lanes: list[Lane] = []
        self.timeouts: list[float] = []
        self.requested: list[DesiredModel] = []

    async def classify(
        self,
        texts: Sequence[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",  # noqa: ARG002  the protocol has it
    ) -> list[Classification]:
        assert 0 < timeout_seconds <= WAIT_SECONDS
        if self.error:
            raise self.error
        if self.errors:
            raise self.errors.pop(0)
        if self.hangs:
            async with asyncio.timeout(timeout_seconds):
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

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        self.requested.append(desired)
        return await self.describe()

    async def describe(self) -> RunnerDescription:
        if self.error:
            raise self.error
        observed_generation = self.requested[-1].generation if self.requested else 0
        return runner_description(
            revision=self.revision,
            engine=self.engine,
            tokens_per_second=self.tokens_per_second,
            observed_generation=observed_generation,
        )


def client(backend: FakeBackend, version: Version = "v1") -> RunnerClient:
    return RunnerClient(version, backend, BOUNDS, timeout_seconds=WAIT_SECONDS)


async def classify(runner: RunnerClient, texts: Sequence[str]) -> list[Classification]:
    with runner.admit(texts):
        return await runner.classify(texts)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def polling(backend: FakeBackend) -> AsyncIterator[RunnerClient]:
    """A client whose runner has not started yet."""
    backend.error = ConnectionRefusedError()
    runner = client(backend)
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
async def test_every_failure_of_a_runner_raises_unavailable_until_it_answers_again(
    backend: FakeBackend, error: Exception
) -> None:
    runner = client(backend)
    await runner.refresh()
    assert runner.ready

    backend.error = error
    with pytest.raises(RunnerUnavailable, match="v1 cannot answer now; try again") as caught:
        await classify(runner, ["a"])
    assert caught.value.__cause__ is error
    await runner.refresh()
    assert not runner.ready
    # Its last description is still known, so its cached answers are still found.
    assert runner.description().revision == "r"

    backend.error = None
    await runner.refresh()
    assert runner.ready


async def test_call_is_repeated_when_its_connection_breaks(backend: FakeBackend) -> None:
    backend.errors = [aiohttp.ServerDisconnectedError()]
    assert len(await classify(client(backend), ["a"])) == 1
    # All connections that were kept open to a dead runner break.
    backend.errors = [aiohttp.ServerDisconnectedError()] * 6
    assert len(await classify(client(backend), ["a"])) == 1
    backend.errors = [aiohttp.ServerDisconnectedError()] * 100
    with pytest.raises(RunnerUnavailable):
        await classify(client(backend), ["a"])


async def test_call_is_not_repeated_when_the_runner_refuses_it(backend: FakeBackend) -> None:
    backend.errors = [ServiceUnavailable("overloaded")]
    with pytest.raises(RunnerUnavailable):
        await classify(client(backend), ["a"])
    assert backend.calls == []


async def test_runner_that_never_answers_is_unavailable_at_the_deadline(
    backend: FakeBackend,
) -> None:
    backend.hangs = True
    runner = RunnerClient("v1", backend, BOUNDS, timeout_seconds=0.05)
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(RunnerUnavailable):
            await classify(runner, ["a"])


async def test_batch_of_texts_is_one_call(backend: FakeBackend) -> None:
    assert len(await classify(client(backend), ("a", "b"))) == 2
    assert backend.calls == [["a", "b"]]


async def test_bulk_request_neither_shares_a_call_nor_waits_for_one(backend: FakeBackend) -> None:
    runner = client(backend)
    backend.hangs = True
    waiting = [asyncio.create_task(classify(runner, [str(number)])) for number in range(20)]
    await asyncio.sleep(0)
    backend.hangs = False
    large = ["x" * 1_000] * (1 + INTERACTIVE_TOKENS // 250)
    assert len(await classify(runner, large)) == len(large)
    assert (large, "bulk") in zip(backend.calls, backend.lanes, strict=True)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_request_past_the_bound_is_refused_with_a_time_to_try_again(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    backend.hangs = True
    waiting = [asyncio.create_task(classify(runner, ["x"])) for _ in range(BOUNDS.texts)]
    await asyncio.sleep(0)
    before = counter("shed_requests_total", reason="queue_size")
    assert runner.is_full
    with pytest.raises(Overloaded, match="v1 has too much to do") as caught:
        await classify(runner, ["x"])
    assert caught.value.retry_after_seconds == 1
    assert counter("shed_requests_total", reason="queue_size") == before + 1
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not runner.is_full
    backend.hangs = False
    await classify(runner, ["x"])


async def test_admitted_texts_count_before_they_are_classified(backend: FakeBackend) -> None:
    runner = client(backend)
    with runner.admit(["x"] * BOUNDS.texts), pytest.raises(Overloaded), runner.admit(["x"]):
        pass
    await classify(runner, ["x"])


async def test_wait_is_known_once_a_saturated_runner_has_answered(
    backend: FakeBackend,
) -> None:
    bounds = QueueBounds(texts=100, tokens=10_000, seconds={"interactive": 0.0, "bulk": 0.0})
    runner = RunnerClient("v1", backend, bounds, timeout_seconds=WAIT_SECONDS)
    with runner.admit(["x"]):
        assert not runner.is_full
    assert len(await classify(runner, ["x" * 1_000] * 10)) == 10
    with runner.admit(["x"]):
        assert runner.is_full


async def test_request_with_less_time_than_the_wait_is_refused_at_once(
    polling: RunnerClient, backend: FakeBackend
) -> None:
    backend.tokens_per_second, backend.error, backend.hangs = 100.0, None, True
    await until(lambda: polling.ready)
    waiting = asyncio.create_task(classify(polling, ["some words that are waited for"]))
    await asyncio.sleep(0)
    before = counter("shed_requests_total", reason="deadline")
    async with deadline_in(0.001):
        with (
            pytest.raises(DeadlineExceeded, match="v1 would not have answered in time"),
            polling.admit(["x"]),
        ):
            pass
    assert counter("shed_requests_total", reason="deadline") == before + 1
    with polling.admit(["x"]):
        pass
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_bulk_request_is_sent_with_the_deadline_of_its_request(
    backend: FakeBackend,
) -> None:
    async with deadline_in(1.0):
        await classify(client(backend), ["x" * 1_000] * 10)
    assert backend.timeouts[-1] <= 1.0


async def test_error_in_our_code_does_not_become_unavailable(backend: FakeBackend) -> None:
    backend.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await classify(client(backend), ["a"])


async def test_runner_is_still_loading_before_its_first_answer(backend: FakeBackend) -> None:
    backend.error = ConnectionRefusedError()
    runner = client(backend, "v2")
    await runner.refresh()
    assert not runner.ready
    with pytest.raises(RunnerUnavailable, match="v2 is still loading"):
        runner.description()


async def test_request_waits_for_the_first_description_when_the_process_has_just_started(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    waiting = asyncio.create_task(polling.wait_until_described())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    backend.error = None
    assert (await waiting).revision == "r"


async def test_runner_that_comes_up_becomes_ready(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    await asyncio.sleep(0)
    assert not polling.ready
    backend.error = None
    await until(lambda: polling.ready)
    assert polling.description() == runner_description()
    assert counter("runner_up", version="v1") == 1


async def test_runner_that_is_gone_is_no_longer_ready(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.error = ConnectionRefusedError()
    await runner.refresh()
    assert not runner.ready
    assert counter("runner_up", version="v1") == 0


async def test_new_revision_replaces_the_old_one_in_the_metric(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.revision = "r2"
    await runner.refresh()
    assert runner.description().revision == "r2"
    values = [
        counter("model_revision_info", version="v1", revision=revision, engine="fake")
        for revision in ("r", "r2")
    ]
    assert values == [0, 1]


async def test_new_engine_replaces_the_old_one_in_the_metric(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.engine = "openvino-bf16"
    await runner.refresh()
    assert runner.description().engine == "openvino-bf16"
    values = [
        counter("model_revision_info", version="v1", revision="r", engine=engine)
        for engine in ("fake", "openvino-bf16")
    ]
    assert values == [0, 1]


async def test_client_that_never_started_can_be_stopped(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.stop()
    assert runner.ready is False


async def test_desired_model_is_requested_once_and_again_after_the_runner_restarted(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    await runner.refresh()
    assert backend.requested == []
    runner.set_desired(DesiredModel("m:2", 7), -math.inf)
    for _ in range(3):
        await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]
    backend.requested.clear()  # it restarted
    await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]


async def test_desired_model_is_requested_from_a_runner_that_comes_up_later(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    polling.set_desired(DesiredModel(None, 4), -math.inf)
    backend.error = None
    await until(lambda: backend.requested == [DesiredModel(None, 4)])


async def test_earlier_generation_than_the_observed_one_is_not_requested(
    backend: FakeBackend,
) -> None:
    behind, ahead = client(backend), client(backend)
    behind.set_desired(DesiredModel("m:1", 6), time.monotonic())
    ahead.set_desired(DesiredModel("m:2", 7), time.monotonic())
    for _ in range(3):
        await ahead.refresh()
        await behind.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]


async def test_generation_read_before_a_later_one_was_observed_is_not_requested(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    backend.requested.append(DesiredModel("m:2", 7))
    await runner.refresh()
    runner.set_desired(DesiredModel("m:2", 7), time.monotonic())
    backend.requested.append(DesiredModel("m:3", 8))
    await runner.refresh()
    assert backend.requested[-1] == DesiredModel("m:3", 8)


async def test_earlier_generation_read_after_a_later_one_was_observed_is_requested(
    backend: FakeBackend,
) -> None:
    backend.requested.append(DesiredModel("m:2", 7))
    runner = client(backend)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    for _ in range(3):
        await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7), DesiredModel("m:1", 6)]


async def test_answer_of_another_revision_refreshes_the_description_at_once(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    backend.error = None
    await until(lambda: polling.ready)
    backend.revision = "r2"
    await classify(polling, ["one"])
    started = asyncio.get_running_loop().time()
    await until(lambda: polling.description().revision == "r2")
    assert asyncio.get_running_loop().time() - started < READY_POLL_SECONDS


async def test_unexpected_error_of_the_watch_is_counted_and_ends_with_its_cause(
    backend: FakeBackend,
) -> None:
    """As with a key that aiohttp refuses to put into a header."""
    before = counter("background_failures_total", task="RunnerClient")
    runner = client(backend)
    runner.start()
    await until(lambda: runner.ready)
    backend.error = ValueError("Newline or carriage return detected in headers")
    await until(lambda: not runner.ready)
    assert counter("background_failures_total", task="RunnerClient") > before
    backend.error = None
    await until(lambda: runner.ready)
    await runner.stop()
