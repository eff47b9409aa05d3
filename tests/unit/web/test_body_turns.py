"""Large bodies are worked on one after the other, and a caller has so many of them waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from core.errors import Overloaded
from web.body_turns import MAX_OF_CALLER, MAX_REST_SECONDS, MAX_WAITING, Turns


async def test_one_at_a_time_has_its_turn_and_the_loop_is_free_between_two() -> None:
    turns, seen = Turns(), []

    async def work(number: int) -> None:
        async with turns.of("ann"):
            seen.append(f"begin {number}")
            await asyncio.sleep(0)
            seen.append(f"end {number}")

    async def other() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append("other")

    await asyncio.gather(work(1), work(2), other())
    own = [what for what in seen if what != "other"]
    assert own == ["begin 1", "end 1", "begin 2", "end 2"]
    assert "other" in seen[: seen.index("end 2")]


@pytest.mark.parametrize("work_seconds", [0.005, 5 * MAX_REST_SECONDS])
async def test_loop_is_free_after_a_turn_for_as_long_as_it_took(work_seconds: float) -> None:
    turns, began, ended = Turns(), [], []

    async def work() -> None:
        async with turns.of("ann"):
            began.append(time.monotonic())
            end = time.monotonic() + work_seconds
            while time.monotonic() < end:
                pass  # as a parser does, without a pause
            ended.append(time.monotonic())

    await asyncio.gather(work(), work(), work())
    rests = [begin - end for end, begin in zip(ended, began[1:], strict=False)]
    assert min(rests) >= min(work_seconds, MAX_REST_SECONDS)


async def test_too_many_of_a_caller_or_in_all_are_refused_until_one_has_ended() -> None:
    turns, goes_on = Turns(), asyncio.Event()

    async def work(caller: str) -> None:
        async with turns.of(caller):
            await goes_on.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(MAX_WAITING):
            group.create_task(work(f"key {number // MAX_OF_CALLER}"))
            if number == MAX_OF_CALLER:
                await asyncio.sleep(0)
                with pytest.raises(Overloaded) as refusal:
                    await work("key 0")
                assert refusal.value.of_large
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await work("another")
        goes_on.set()
    await work("key 0")


async def test_turn_that_is_given_up_or_fails_lets_the_next_one_begin() -> None:
    turns = Turns()

    async def fail() -> None:
        async with turns.of("ann"):
            await asyncio.sleep(0)
            raise ZeroDivisionError

    waiting = asyncio.ensure_future(fail())
    given_up = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(waiting, given_up, return_exceptions=True)
    async with turns.of("ann"):
        pass
