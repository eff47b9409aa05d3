"""Single-flight: equal keys in flight are computed once, whatever happens to the callers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.single_flight import SingleFlight


class Computation:
    """Upper-cases keys when its gate opens; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(keys))
        await self.gate.wait()
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
    assert compute.asked == [["a", "b"], ["c"]]
    assert joins == [1]


async def test_what_has_landed_is_computed_anew() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    compute.gate.set()
    await flight.get(["a"], compute)
    await flight.get(["a"], compute)
    assert compute.asked == [["a"], ["a"]]


async def test_a_failure_reaches_everyone_and_is_not_remembered() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    compute.error = ValueError("no")
    tasks = [asyncio.create_task(flight.get(["a"], compute)) for _ in range(3)]
    await settle()
    compute.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
    compute.error = None
    assert await flight.get(["a"], compute) == {"a": "A"}


async def test_a_caller_that_leaves_does_not_take_the_answer_away() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    leaver = asyncio.create_task(flight.get(["a"], compute))
    await settle()
    stayer = asyncio.create_task(flight.get(["a"], compute))
    await settle()
    leaver.cancel()
    await settle()
    compute.gate.set()
    assert await stayer == {"a": "A"}
    assert compute.asked == [["a"]]
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_nothing_asked_computes_nothing() -> None:
    flight, compute = SingleFlight[str](lambda _: None), Computation()
    assert await flight.get([], compute) == {}
    assert compute.asked == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), max_size=8))
def test_any_mix_of_batches_gets_its_answers(batches: list[list[str]]) -> None:
    async def run() -> None:
        flight, compute = SingleFlight[str](lambda _: None), Computation()
        tasks = [asyncio.create_task(flight.get(batch, compute)) for batch in batches]
        await settle()
        compute.gate.set()
        for batch, answers in zip(batches, await asyncio.gather(*tasks), strict=True):
            assert answers == {key: key.upper() for key in batch}
        asked = [key for keys in compute.asked for key in keys]
        assert len(asked) == len(set(asked))

    asyncio.run(run())
