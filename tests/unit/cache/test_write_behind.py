"""Writes wait in order, within a bound, and nobody who adds one waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.write_behind import WriteBehind
from tests.unit.fakes import counter

WAIT_SECONDS = 5.0


class Target:
    """Keeps what is written; waits at its gate, as a slow Redis."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.cancelled = False
        self.writing = 0

    async def write(self, items: list[int]) -> None:
        assert self.writing == 0, "two writes at once"
        self.writing += 1
        self.entered.set()
        try:
            await self.gate.wait()
            self.batches.append(items)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.writing -= 1

    @property
    def written(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


def behind(target: Target, *, max_items: int = 100, batch_items: int = 3) -> WriteBehind[int]:
    return WriteBehind(target.write, max_items=max_items, batch_items=batch_items)


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """After each test, its own and no other task is there."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


async def test_items_are_written_in_order_and_in_batches() -> None:
    target = Target()
    writes = behind(target)
    assert writes.add(range(7)) == 0
    assert target.batches == []  # adding writes nothing itself
    assert await writes.flush(WAIT_SECONDS)
    assert target.batches == [[0, 1, 2], [3, 4, 5], [6]]


async def test_items_that_come_during_a_write_follow_in_order() -> None:
    target = Target()
    target.gate.clear()
    writes = behind(target)
    writes.add([0])
    await target.entered.wait()
    for item in range(1, 6):
        assert writes.add([item]) == 0
    target.gate.set()
    assert await writes.flush(WAIT_SECONDS)
    assert target.batches == [[0], [1, 2, 3], [4, 5]]


async def test_writing_begins_again_after_a_pause() -> None:
    target = Target()
    writes = behind(target)
    for item in range(3):
        writes.add([item])
        assert await writes.flush(WAIT_SECONDS)
    assert target.batches == [[0], [1], [2]]


async def test_newest_items_past_the_bound_are_dropped_and_counted() -> None:
    target = Target()
    target.gate.clear()
    writes = behind(target, max_items=4)
    writes.add([0])
    await target.entered.wait()
    # The item that is being written waits no more.
    assert writes.add(range(1, 4)) == 0
    assert writes.add(range(4, 7)) == 2
    assert writes.add([7]) == 1
    target.gate.set()
    assert await writes.flush(WAIT_SECONDS)
    assert target.written == [0, 1, 2, 3, 4]
    # Once there is room again, nothing more is dropped.
    assert writes.add([8]) == 0
    assert await writes.flush(WAIT_SECONDS)
    assert target.written[-1] == 8


async def test_no_items_are_no_write() -> None:
    target = Target()
    writes = behind(target)
    assert writes.add([]) == 0
    assert await writes.flush(WAIT_SECONDS)
    assert not target.entered.is_set()


async def test_flush_of_a_slow_target_ends_with_its_time_and_the_write_goes_on() -> None:
    target = Target()
    target.gate.clear()
    writes = behind(target)
    writes.add(range(4))
    assert not await writes.flush(0.01)
    assert not target.cancelled
    target.gate.set()
    assert await writes.flush(WAIT_SECONDS)
    assert target.written == [0, 1, 2, 3]


async def test_stop_writes_all_that_waits() -> None:
    target = Target()
    writes = behind(target)
    writes.add(range(10))
    await writes.stop(WAIT_SECONDS)
    assert target.written == list(range(10))


async def test_stop_of_a_slow_target_ends_with_its_time() -> None:
    target = Target()
    target.gate.clear()
    writes = behind(target)
    writes.add(range(10))
    loop = asyncio.get_running_loop()
    started = loop.time()
    await writes.stop(0.05)
    assert 0.05 <= loop.time() - started < WAIT_SECONDS
    assert target.cancelled
    assert target.batches == []


async def test_stop_without_any_write_does_nothing() -> None:
    target = Target()
    writes = behind(target)
    await writes.stop(WAIT_SECONDS)
    assert target.batches == []


async def test_cancelled_flush_leaves_the_write_alone() -> None:
    target = Target()
    target.gate.clear()
    writes = behind(target)
    writes.add([0])
    flush = asyncio.create_task(writes.flush(WAIT_SECONDS))
    await target.entered.wait()
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flush
    target.gate.set()
    assert await writes.flush(WAIT_SECONDS)
    assert target.written == [0]


@given(st.lists(st.integers(0, 7), max_size=20), st.integers(1, 10), st.integers(1, 5))
async def test_each_item_is_written_once_in_order_or_counted_as_dropped(
    sizes: list[int], max_items: int, batch_items: int
) -> None:
    target = Target()
    writes = behind(target, max_items=max_items, batch_items=batch_items)
    number = dropped = 0
    for size in sizes:
        dropped += writes.add(range(number, number + size))
        number += size
        await asyncio.sleep(0)
    assert await writes.flush(WAIT_SECONDS)
    assert len(target.written) + dropped == number
    assert target.written == sorted(set(target.written))
    assert all(0 < len(batch) <= batch_items for batch in target.batches)


async def test_unexpected_error_of_a_write_loses_only_its_batch_and_is_counted() -> None:
    before = counter("background_failures_total", task="CacheWriter")
    written: list[int] = []

    async def write(items: list[int]) -> None:
        if 0 in items:
            raise ValueError("a fault of our own")
        written.extend(items)

    writes = WriteBehind(write, max_items=100, batch_items=3)
    writes.add(range(9))
    assert await writes.flush(WAIT_SECONDS)
    assert written == list(range(3, 9))
    assert counter("background_failures_total", task="CacheWriter") - before == 1
