"""The client of a runner: admission, failures, and the runner's state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from core.errors import DeadlineExceeded, Overloaded, RunnerUnavailable
from core.request_context import RequestContext, deadline_in, enter
from core.types import Classification
from runners import wire
from runners.admission import QueueBounds
from runners.client import RunnerClient, have_room
from runners.lanes import INTERACTIVE_TOKENS
from tests.unit.fakes import counter
from tests.unit.runners.backends import BOUNDS, WAIT_SECONDS, FakeBackend, classify, client, until


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


async def test_runner_that_stays_down_refuses_at_once_what_could_only_wait_in_vain(
    backend: FakeBackend,
) -> None:
    runner = RunnerClient("v1", backend, BOUNDS, timeout_seconds=0.05)
    await runner.refresh()
    backend.error = ConnectionRefusedError()
    await runner.refresh()
    # A runner that is replaced is waited for; the wait of this one is that of a request.
    with pytest.raises((RunnerUnavailable, DeadlineExceeded), match=r"^(?!.*has been down)"):
        await classify(runner, ["a"])
    await until(lambda: runner.is_idle)
    async with asyncio.timeout(5):
        while True:
            with pytest.raises((RunnerUnavailable, DeadlineExceeded)) as caught:
                await classify(runner, ["a"])
            if "v1 has been down for" in str(caught.value):
                break
    backend.error = None
    await runner.refresh()
    assert len(await classify(runner, ["a"])) == 1


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


LONG = [f"{number} ".ljust(5_000, "x") for number in range(30)]


async def test_request_of_very_many_tokens_is_sent_by_pieces_in_its_order(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    with runner.admit(LONG, "windows"):
        answers = await runner.classify(LONG, "windows")
    assert len(answers) == 30
    assert [len(call) for call in backend.calls] == [3] * 10
    assert [text for call in sorted(backend.calls, key=numbered) for text in call] == LONG
    # Cut to the window, they are few tokens each.
    backend.calls.clear()
    assert len(await runner.classify(LONG[:10])) == 10
    assert [len(call) for call in backend.calls] == [10]


async def test_call_of_the_longest_texts_is_one_that_every_runner_takes(
    backend: FakeBackend,
) -> None:
    """The body of the request may have had a byte for a character that has four in UTF-8."""
    texts = ["\N{GRINNING FACE}" * 200_000, *(["\N{GRINNING FACE}" * 20_000] * 40)]
    assert len(await classify(client(backend), texts)) == 41
    assert sum(map(len, backend.calls)) == 41
    for call in backend.calls:
        message = wire.encode_streamed(wire.StreamCall(1, call, 10.0, "bulk", "", "truncate"))
        assert len(message) <= wire.SHARED_CALL_BYTES


def numbered(call: list[str]) -> int:
    return int(call[0].split()[0])


@pytest.mark.parametrize("texts", [LONG, LONG[:3]])
async def test_each_piece_is_told_as_it_comes(backend: FakeBackend, texts: list[str]) -> None:
    told: dict[int, Classification] = {}

    def on_piece(first: int, results: Sequence[Classification]) -> None:
        told.update(enumerate(results, first))

    answers = await client(backend).classify(texts, "windows", on_piece=on_piece)
    assert [told[number] for number in range(len(texts))] == answers
    told.clear()
    backend.errors = [BentoMLException("no")]
    with pytest.raises(RunnerUnavailable):
        await client(backend).classify(LONG, "windows", on_piece=on_piece)
    assert 0 < len(told) < len(LONG)


async def test_other_requests_come_between_the_pieces_of_a_large_one(backend: FakeBackend) -> None:
    backend.seconds = 0.01
    runner = client(backend)
    large = asyncio.create_task(runner.classify(LONG, "windows"))
    await until(lambda: len(backend.calls) > 1)
    await runner.classify(["short"])
    await large
    assert ["short"] in backend.calls[:-1]


async def test_failure_of_a_piece_is_that_of_the_request(backend: FakeBackend) -> None:
    backend.errors = [BentoMLException("no")]
    runner = client(backend)
    with pytest.raises(RunnerUnavailable, match="v1 cannot answer now"):
        await runner.classify(LONG, "windows")
    assert len(backend.calls) < 10


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
    with pytest.raises(Overloaded, match="The model has too much to do") as caught:
        await classify(runner, ["x"])
    assert caught.value.retry_after_seconds == 1
    assert counter("shed_requests_total", reason="queue_size") == before + 1
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not runner.is_full
    backend.hangs = False
    await classify(runner, ["x"])


async def test_requests_that_no_model_has_seen_take_room_too(backend: FakeBackend) -> None:
    busy, idle = client(backend), client(backend)
    assert have_room([busy, idle], "me", 10_000)
    with contextlib.ExitStack() as waiting:
        context = RequestContext("1", caller="me")
        enter(context)
        for _ in range(BOUNDS.texts - 5):
            waiting.enter_context(busy.admit(["x"]))
        under_way = BOUNDS.texts - 5
        assert have_room([busy, idle], "me", under_way)
        assert have_room([busy, idle], "me", under_way + 4)
        assert not have_room([busy, idle], "me", under_way + 5)
        # Both wait for one request that is compared.
        waiting.enter_context(idle.admit(["x"]))
        assert have_room([busy, idle], "me", under_way)
        for _ in range(5):
            waiting.enter_context(busy.admit(["x"]))
        assert not have_room([busy, idle], "me", 0)


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
            pytest.raises(DeadlineExceeded, match="The model would not have answered in time"),
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
