"""Single-flight: equal keys in flight are computed once, whatever happens to the callers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.single_flight import SingleFlight


class Computation:
    """Upper-cases keys once its gate opens; records the keys of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.cancelled: list[list[str]] = []

    async def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.calls.append(list(keys))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(list(keys))
            raise
        if self.error:
            raise self.error
        return {key: key.upper() for key in keys}


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_overlapping_batches_compute_each_key_once() -> None:
    joins: list[int] = []
    flight, compute = SingleFlight[str](joins.append), Computation()
    first = asyncio.create_task(flight.get(["a", "b"], compute))
    await settle()
    second = asyncio.create_task(flight.get(["b", "c", "c"], compute))
    await settle()
    compute.gate.set()
    assert await first == {"a": "A", "b": "B"}
    assert await second == {"b": "B", "c": "C"}
    assert compute.calls == [["a", "b"], ["c"]]
    assert joins == [1]


async def test_small_call_waits_for_no_large_one_and_others_wait_for_it() -> None:
    joins: list[int] = []
    flight, large, small = SingleFlight[str](joins.append), Computation(), Computation()
    first = asyncio.create_task(flight.get(["a", "b"], large, is_large=True))
    await settle()
    second = asyncio.create_task(flight.get(["b"], small))
    await settle()
    third = asyncio.create_task(flight.get(["b"], small))
    fourth = asyncio.create_task(flight.get(["a"], small, is_large=True))
    await settle()
    small.gate.set()
    assert await second == await third == {"b": "B"}
    assert not first.done()
    assert not fourth.done()
    large.gate.set()
    assert await first == {"a": "A", "b": "B"}
    assert await fourth == {"a": "A"}
    assert (large.calls, small.calls) == ([["a", "b"]], [["b"]])
    assert joins == [1, 1]


async def test_value_that_was_found_early_is_not_waited_for() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    first = asyncio.create_task(flight.get(["a", "b"], compute, is_large=True))
    await settle()
    second = asyncio.create_task(flight.get(["a"], compute, is_large=True))
    await settle()
    flight.found({"a": "A", "of nobody": "?"})
    assert await second == {"a": "A"}
    assert not first.done()
    compute.error = RuntimeError("later")
    compute.gate.set()
    with pytest.raises(RuntimeError, match="later"):
        await first
    assert compute.calls == [["a", "b"]]


async def test_finished_key_is_computed_again() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    compute.gate.set()
    await flight.get(["a"], compute)
    await flight.get(["a"], compute)
    assert compute.calls == [["a"], ["a"]]


async def test_failure_reaches_every_caller_and_is_not_cached() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    compute.error = ValueError("no")
    tasks = [asyncio.create_task(flight.get(["a"], compute)) for _ in range(3)]
    await settle()
    compute.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
    compute.error = None
    assert await flight.get(["a"], compute) == {"a": "A"}


async def test_cancelled_caller_does_not_cancel_the_answer_of_another() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    leaver = asyncio.create_task(flight.get(["a"], compute))
    await settle()
    stayer = asyncio.create_task(flight.get(["a"], compute))
    await settle()
    leaver.cancel()
    await settle()
    compute.gate.set()
    assert await stayer == {"a": "A"}
    assert compute.calls == [["a"]]
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def leave(caller: asyncio.Task[dict[str, str]]) -> None:
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await settle()


async def test_computation_is_cancelled_when_its_last_caller_has_left() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    callers = []
    for keys in (["a", "b"], ["b"], ["a"]):
        callers.append(asyncio.create_task(flight.get(keys, compute)))
        await settle()
    for caller in callers[:2]:
        await leave(caller)
        assert compute.cancelled == []
    await leave(callers[2])
    assert compute.cancelled == [["a", "b"]]
    # A new call does not join the cancelled computation.
    compute.gate.set()
    assert await flight.get(["b"], compute) == {"b": "B"}
    assert compute.calls == [["a", "b"], ["b"]]


async def test_computation_continues_for_the_remaining_caller() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    first = asyncio.create_task(flight.get(["a", "b"], compute))
    await settle()
    # The second call waits for a key of the first computation, and for a key of its own.
    second = asyncio.create_task(flight.get(["b", "c"], compute))
    await settle()
    third = asyncio.create_task(flight.get(["c"], compute))
    await settle()
    await leave(first)
    await leave(third)
    assert compute.cancelled == []
    compute.gate.set()
    assert await second == {"b": "B", "c": "C"}
    assert compute.calls == [["a", "b"], ["c"]]


async def test_leaving_caller_cancels_only_keys_without_other_callers() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    stayer = asyncio.create_task(flight.get(["a"], compute))
    await settle()
    leaver = asyncio.create_task(flight.get(["a", "b"], compute))
    await settle()
    await leave(leaver)
    assert compute.cancelled == [["b"]]
    compute.gate.set()
    assert await stayer == {"a": "A"}


async def test_slowly_ending_cancelled_computation_blocks_no_new_call() -> None:
    ends = asyncio.Event()

    async def slow_to_end(_: Sequence[str]) -> Mapping[str, str]:
        try:
            return await asyncio.Future()
        finally:
            await ends.wait()

    flight, compute = SingleFlight[str](lambda _: None), Computation()
    leaver = asyncio.create_task(flight.get(["a"], slow_to_end))
    await settle()
    await leave(leaver)
    callers = [asyncio.create_task(flight.get(["a"], compute))]
    await settle()
    ends.set()
    await settle()
    # The second caller joins the first one, whose computation is still under way.
    callers.append(asyncio.create_task(flight.get(["a"], compute)))
    await settle()
    compute.gate.set()
    assert await asyncio.gather(*callers) == [{"a": "A"}] * 2
    assert compute.calls == [["a"]]


async def test_call_without_keys_computes_nothing() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    assert await flight.get([], compute) == {}
    assert compute.calls == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), max_size=8))
def test_every_mix_of_batches_gets_its_answers(batches: list[list[str]]) -> None:
    async def run() -> None:
        flight, compute = SingleFlight[str](lambda _: None), Computation()
        tasks = [asyncio.create_task(flight.get(batch, compute)) for batch in batches]
        await settle()
        compute.gate.set()
        for batch, answers in zip(batches, await asyncio.gather(*tasks), strict=True):
            assert answers == {key: key.upper() for key in batch}
        computed = [key for keys in compute.calls for key in keys]
        assert len(computed) == len(set(computed))

    asyncio.run(run())


class Slow:
    """Upper-cases keys after some turns of the loop, or fails then."""

    def __init__(self, turns: int, *, fails: bool) -> None:
        self.turns = turns
        self.fails = fails

    async def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.fails:
            raise ValueError("no")
        return {key: key.upper() for key in keys}


CALLS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=4),
        st.integers(0, 6),  # turns before the call
        st.integers(0, 6),  # turns of the computation
        st.booleans(),  # whether the computation fails
        st.none() | st.integers(0, 6),  # turns before the cancellation
    ),
    max_size=6,
)
Call = tuple[list[str], int, int, bool, int | None]


@settings(max_examples=150, deadline=None)
@given(CALLS)
def test_every_call_ends_and_no_key_stays_in_flight(calls: list[Call]) -> None:
    async def caller(flight: SingleFlight[str], call: Call) -> dict[str, str]:
        keys, wait, turns, fails, _ = call
        for _ in range(wait):
            await asyncio.sleep(0)
        return await flight.get(keys, Slow(turns, fails=fails))

    async def canceller(task: asyncio.Task[dict[str, str]], turns: int | None) -> None:
        if turns is not None:
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

    async def run() -> None:
        unhandled: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: unhandled.append(context)
        )
        flight = SingleFlight[str](lambda _: None)
        tasks = [asyncio.create_task(caller(flight, call)) for call in calls]
        async with asyncio.timeout(5):
            cancellers = (canceller(task, call[4]) for task, call in zip(tasks, calls, strict=True))
            await asyncio.gather(*cancellers)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome, (keys, *_, cancelled_after) in zip(outcomes, calls, strict=True):
            match outcome:
                case asyncio.CancelledError():
                    assert cancelled_after is not None
                case ValueError():
                    assert any(call[3] for call in calls)
                case _:
                    assert outcome == {key: key.upper() for key in keys}
        # No key is in flight any more, so every key is computed again.
        for _ in range(10):
            await asyncio.sleep(0)
        compute = Computation()
        compute.gate.set()
        await flight.get(["a", "b", "c", "d"], compute)
        assert compute.calls == [["a", "b", "c", "d"]]
        gc.collect(0)
        assert unhandled == []

    asyncio.run(run())


async def test_computation_without_a_requested_key_fails_for_its_caller() -> None:
    async def incomplete(_: Sequence[str]) -> Mapping[str, str]:
        return {"a": "A"}

    flight = SingleFlight[str](lambda _: None)
    with pytest.raises(KeyError):
        await flight.get(["a", "b"], incomplete)
    assert await flight.get(["a"], incomplete) == {"a": "A"}
