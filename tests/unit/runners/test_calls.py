"""Calls to a runner that is lost: repeated, but not for ever with texts that it may die of."""

from __future__ import annotations

import pytest

from core.errors import RunnerUnavailable
from core.types import Classification, DesiredModel, LongText, RunnerDescription
from runners.calls import MAX_LOST, RunnerCalls
from runners.lanes import Lane
from runners.stream import StreamLost
from runners.transport import CallLost
from tests.unit.fakes import classification, runner_description

ANSWER = classification("a text", "r1")


class FakeRunner:
    """Raises what it is given, one error a call, and answers then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        assert (texts, timeout_seconds > 0, lane, long_text) == (
            ["a text"], True, "interactive", "truncate",
        )  # fmt: skip
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return [ANSWER]

    async def describe(self) -> RunnerDescription:
        return runner_description()

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        raise AssertionError(desired)


async def send(runner: FakeRunner) -> list[Classification]:
    calls = RunnerCalls("v1", runner, timeout_seconds=5.0)
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
async def test_call_is_answered_by_the_runner_that_comes_after(errors: list[Exception]) -> None:
    runner = FakeRunner(*errors)
    assert await send(runner) == [ANSWER]
    assert runner.calls == len(errors) + 1


async def test_texts_that_each_runner_dies_of_are_given_up() -> None:
    runner = FakeRunner(*[CallLost("it hung up")] * 20)
    with pytest.raises(RunnerUnavailable):
        await send(runner)
    assert runner.calls == MAX_LOST
