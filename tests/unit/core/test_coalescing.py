"""Calls are shared: nothing waits for an idle backend, and everyone gets what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.coalescing import Bounds, CallDropped, Coalescer

BOUNDS = Bounds(calls=2, call_items=4, waiting_items=8)


class Backend:
    """Doubles numbers when its gate is open; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.error: BaseException | None = None
        self.forgets = False

    async def __call__(self, items: list[int], timeout_seconds: float) -> Sequence[int]:
        assert timeout_seconds > 0
        self.calls.append(items)
        await self.gate.wait()
        if self.error:
            raise self.error
        return [2 * item for item in items][self.forgets :]


def shared(
    backend: Backend, bounds: Bounds = BOUNDS, timeout_seconds: float = 5
) -> Coalescer[int, int]:
    return Coalescer(backend, bounds, timeout_seconds=timeout_seconds)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_while_calls_are_under_way_shares_the_next_one() -> None:
    backend = Backend()
    calls = shared(backend)
    tasks = [asyncio.create_task(calls.get([number])) for number in range(5)]
    await settle()
    assert backend.calls == [[0], [1]]
    backend.gate.set()
    assert await asyncio.gather(*tasks) == [[0], [2], [4], [6], [8]]
    assert backend.calls == [[0], [1], [2, 3, 4]]


async def test_a_request_larger_than_a_call_is_one_call() -> None:
    backend = Backend()
    backend.gate.set()
    numbers = list(range(20))
    assert await shared(backend).get(numbers) == [2 * number for number in numbers]
    assert backend.calls == [numbers]


async def test_who_left_before_the_call_is_left_out_of_it() -> None:
    backend = Backend()
    calls = shared(backend, Bounds(calls=1, call_items=4, waiting_items=8))
    first, leaver, stayer = (asyncio.create_task(calls.get([number])) for number in range(3))
    await settle()
    leaver.cancel()
    await settle()
    backend.gate.set()
    assert (await first, await stayer) == ([0], [4])
    assert backend.calls == [[0], [2]]


async def test_who_leaves_during_the_call_does_not_take_it_away() -> None:
    backend = Backend()
    calls = shared(backend, Bounds(calls=1, call_items=4, waiting_items=8))
    first, leaver, stayer = (asyncio.create_task(calls.get([number])) for number in range(3))
    await settle()
    backend.gate.set()
    await first
    leaver.cancel()
    assert await stayer == [4]


async def test_too_much_that_waits_is_refused() -> None:
    backend = Backend()
    calls = shared(backend, Bounds(calls=1, call_items=4, waiting_items=3))
    tasks = [asyncio.create_task(calls.get([number])) for number in range(4)]
    await settle()
    with pytest.raises(CallDropped, match="3 wait already"):
        await calls.get([9])
    backend.gate.set()
    assert await asyncio.gather(*tasks) == [[0], [2], [4], [6]]


async def test_what_is_past_its_deadline_is_not_sent() -> None:
    backend = Backend()
    calls = shared(backend, Bounds(calls=1, call_items=4, waiting_items=8), timeout_seconds=0.01)
    first, late = (asyncio.create_task(calls.get([number])) for number in range(2))
    await asyncio.sleep(0.02)
    backend.gate.set()
    assert await first == [0]
    with pytest.raises(CallDropped, match="deadline"):
        await late
    assert backend.calls == [[0]]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
async def test_a_failed_call_fails_all_that_shared_it_and_no_other(error: BaseException) -> None:
    backend = Backend()
    backend.error = error
    calls = shared(backend)
    tasks = [asyncio.create_task(calls.get([number])) for number in range(4)]
    await settle()
    backend.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(error)] * 4
    backend.error = None
    assert await calls.get([7]) == [14]


async def test_a_backend_that_forgets_an_item_is_a_failure() -> None:
    backend = Backend()
    backend.forgets = True
    backend.gate.set()
    with pytest.raises(ValueError, match="1 results came back for 2 items"):
        await shared(backend).get([1, 2])


@pytest.mark.parametrize("cancel_abandoned", [True, False])
async def test_a_call_is_given_up_with_the_last_who_wanted_it(*, cancel_abandoned: bool) -> None:
    given_up: list[list[int]] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def doubled(items: list[int], _timeout_seconds: float) -> list[int]:
        begun.set()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            given_up.append(items)
            raise
        return [2 * item for item in items]

    calls = Coalescer[int, int](
        doubled,
        Bounds(calls=1, call_items=10, waiting_items=100),
        timeout_seconds=5,
        cancel_abandoned=cancel_abandoned,
    )
    alone = asyncio.create_task(calls.get([1]))
    await begun.wait()
    pair = [asyncio.create_task(calls.get([number])) for number in (2, 3)]
    await asyncio.sleep(0)
    alone.cancel()
    pair[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    gate.set()
    assert await pair[1] == [6]
    assert given_up == ([[1]] if cancel_abandoned else [])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 99), min_size=1, max_size=6),
            st.integers(0, 5),  # turns of the loop before it asks
            st.none() | st.integers(0, 8),  # turns before it leaves
        ),
        max_size=12,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_everyone_gets_what_is_theirs(
    requests: list[tuple[list[int], int, int | None]], calls_at_once: int, cancel_abandoned: bool
) -> None:
    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def doubled(items: list[int], _timeout_seconds: float) -> list[int]:
        await turns(items[0] % 4)
        return [2 * item for item in items]

    async def run() -> None:
        calls = Coalescer[int, int](
            doubled,
            Bounds(calls_at_once, call_items=5, waiting_items=1_000),
            timeout_seconds=5,
            cancel_abandoned=cancel_abandoned,
        )

        async def ask(items: list[int], wait: int) -> list[int]:
            await turns(wait)
            return await calls.get(items)

        async def leave(task: asyncio.Task[list[int]], after: int) -> None:
            await turns(after)
            task.cancel()

        tasks = [asyncio.create_task(ask(items, wait)) for items, wait, _ in requests]
        leaving = [
            asyncio.create_task(leave(task, after))
            for task, (_, _, after) in zip(tasks, requests, strict=True)
            if after is not None
        ]
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*leaving)
        for outcome, (items, _, after) in zip(outcomes, requests, strict=True):
            if isinstance(outcome, asyncio.CancelledError):
                assert after is not None
            else:
                assert outcome == [2 * item for item in items]

    asyncio.run(run())
