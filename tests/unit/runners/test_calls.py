"""Calls to a runner that is lost: repeated, but not for ever with texts that it may die of."""

from __future__ import annotations

import pytest

from core.errors import RunnerUnavailable
from core.types import Classification
from runners.calls import MAX_LOST, RunnerCalls
from runners.stream import StreamLost
from runners.transport import CallLost
from tests.unit.runners.backends import FakeBackend


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


async def send(backend: FakeBackend) -> list[Classification]:
    calls = RunnerCalls("v1", backend, timeout_seconds=5.0)
    return await calls.send(["a text"], "interactive", 5.0)


@pytest.mark.parametrize(
    "errors",
    [
        [CallLost("it hung up")] * (MAX_LOST - 1),
        [StreamLost("it starts")] * 8,
        [CallLost("it hung up"), *[StreamLost("it starts")] * 8, CallLost("it hung up")],
    ],
    ids=["lost", "not there yet", "lost and not there yet"],
)
async def test_call_is_answered_by_the_runner_that_comes_after(
    backend: FakeBackend, errors: list[Exception]
) -> None:
    backend.errors = [*errors]
    [answer] = await send(backend)
    assert answer.revision == backend.revision
    assert backend.errors == []
    assert (backend.calls, backend.lanes) == ([["a text"]], ["interactive"])


async def test_texts_that_each_runner_dies_of_are_given_up(backend: FakeBackend) -> None:
    backend.errors = [CallLost("it hung up")] * 20
    with pytest.raises(RunnerUnavailable) as given_up:
        await send(backend)
    assert (len(backend.errors), backend.calls) == (20 - MAX_LOST, [])
    assert given_up.value.lost == MAX_LOST


async def test_runners_that_were_lost_are_counted_where_none_comes_after(
    backend: FakeBackend,
) -> None:
    backend.errors = [CallLost("it hung up"), *[StreamLost("it starts")] * 40]
    with pytest.raises(RunnerUnavailable) as given_up:
        await send(backend)
    assert given_up.value.lost == 1
