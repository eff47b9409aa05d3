"""Adaptive batching: each call gets its answers, and no text waits in vain."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence

import pytest
from bentoml.exceptions import ServiceUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st

from core.types import Classification
from runners.batching import TokenBatcher
from runners.packing import MAX_BATCH_TEXTS, MAX_BATCH_TOKENS, MIN_FILL, fits
from runners.queue import LOOKAHEAD_TEXTS
from tests.unit.fakes import counter
from tests.unit.runners.echo import (
    PLENTY,
    WAIT_SECONDS,
    Echo,
    batching,
    busy,
    classify,
    length,
    queued,
    text,
)
from tests.waiting import until

CALLS = st.lists(
    st.lists(st.integers(1, 600) | st.integers(1, 40), min_size=1, max_size=25), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(CALLS, st.integers(1, 3))
def test_any_mix_of_calls_gets_its_answers_from_batches_within_the_limits(
    lengths: list[list[int]], streams: int
) -> None:
    numbers = itertools.count()
    calls = [[text(next(numbers), tokens) for tokens in call] for call in lengths]
    model = Echo()

    async def run() -> list[list[str]]:
        with batching(model, streams=streams) as batcher:
            return await asyncio.gather(*(classify(batcher, call) for call in calls))

    assert asyncio.run(run()) == calls
    assert sorted(model.computed()) == sorted(text for call in calls for text in call)
    for batch in model.batches:
        shortest, *_, longest = sorted([length(text) for text in batch] * 2)
        assert fits(longest, len(batch))
        assert shortest >= MIN_FILL * longest


async def test_idle_batcher_computes_a_text_at_once() -> None:
    model, seconds = Echo(), []
    texts = [text(number, 5) for number in range(50)]
    with batching(model, streams=2) as batcher:
        for alone in texts:
            started = time.perf_counter()
            assert await classify(batcher, [alone]) == [alone]
            seconds.append(time.perf_counter() - started)
    assert model.batches == [[alone] for alone in texts]
    # The best of fifty: a busy machine does not slow down all of them, a waiting window would.
    assert min(seconds) < 0.005


async def test_texts_of_one_call_share_batches_up_to_the_limits() -> None:
    model = Echo()
    tiny = [text(number, 2) for number in range(MAX_BATCH_TEXTS + 1)]
    wide = [text(100 + number, 100) for number in range(MAX_BATCH_TOKENS // 100 + 1)]
    with batching(model) as batcher:
        assert await classify(batcher, [*tiny, *wide]) == [*tiny, *wide]
    # The longest texts come first.
    assert [len(batch) for batch in model.batches] == [5, 1, 32, 1]


async def test_rest_of_a_call_shares_a_batch_with_the_next_call() -> None:
    model = Echo(permits=0)
    large = [text(number, 40) for number in range(1, 14)]
    small = text(20, 40)
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, *large), await queued(batcher, small)]
        model.permits.release(PLENTY)
        assert await asyncio.gather(first, *calls) == [[text(0, 1)], large, [small]]
    assert model.batches[1:] == [large[:12], [large[12], small]]


async def test_texts_of_many_waiting_calls_share_a_batch() -> None:
    model = Echo(permits=0)
    texts = [text(number, 8) for number in range(1, 17)]
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, waiting) for waiting in texts]
        model.permits.release(PLENTY)
        await asyncio.gather(first, *calls)
    assert [sorted(batch) for batch in model.batches[1:]] == [sorted(texts)]


async def test_texts_past_the_lookahead_are_not_tokenised_yet() -> None:
    model = Echo(permits=0)
    texts = [text(number % 1_000, 8) for number in range(2 * LOOKAHEAD_TEXTS)]
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, waiting) for waiting in texts]
        model.permits.release()
        await model.next_batch()
        assert len(model.encoded) == 1 + LOOKAHEAD_TEXTS
        model.permits.release(PLENTY)
        await asyncio.gather(first, *calls)


async def test_long_text_does_not_pad_short_ones() -> None:
    model = Echo(permits=0)
    short = [text(number, 8) for number in range(1, 31)]
    long = text(31, 512)
    with batching(model) as batcher:
        first = await busy(batcher, model)
        mixed = [*short[:15], long, *short[15:]]
        calls = [await queued(batcher, *mixed), await queued(batcher, long)]
        model.permits.release(PLENTY)
        assert await asyncio.gather(first, *calls) == [[text(0, 1)], mixed, [long]]
    assert [batch for batch in model.batches if long in batch] == [[long], [long]]
    [shared] = [batch for batch in model.batches if short[0] in batch]
    assert sorted(shared) == sorted(short)


async def test_queued_texts_and_padding_are_counted() -> None:
    def counted(kind: str) -> float:
        return counter("model_tokens_total", version="v1", kind=kind)

    model = Echo(permits=0)
    with batching(model) as batcher:
        first = await busy(batcher, model)
        before = counted("text"), counted("padding")
        calls = [await queued(batcher, text(1, 6), text(2, 10)), await queued(batcher, text(3, 9))]
        assert counter("model_queued_texts", version="v1") == 3
        model.permits.release(PLENTY)
        await asyncio.gather(first, *calls)
    assert len(model.batches) == 2
    assert counted("text") - before[0] == 6 + 10 + 9
    assert counted("padding") - before[1] == 4 + 0 + 1
    assert counter("model_queued_texts", version="v1") == 0


async def test_long_text_is_not_starved_by_a_stream_of_short_ones() -> None:
    model = Echo(permits=0)
    long = text(1, 400)
    with batching(model) as batcher:
        await busy(batcher, model)
        calls = [await queued(batcher, text(2, 8)), await queued(batcher, long)]
        batches = []
        for number in range(10, 14):
            # Two short texts come for each batch that is computed.
            calls += [await queued(batcher, text(2 * number + side, 8)) for side in (0, 1)]
            model.permits.release()
            batches.append(await model.next_batch())
        model.permits.release(PLENTY)
        await asyncio.gather(*calls)
    assert text(2, 8) in batches[0]
    assert batches[1] == [long]


class Divided(Echo):
    """Has no permits: bulk work waits for `permits`, and requests for `requests`."""

    def __init__(self) -> None:
        super().__init__(permits=0)
        self.requests = threading.Semaphore(0)

    def permits_of(self, batch: Sequence[str]) -> threading.Semaphore:
        return self.permits if batch[0] in LONG else self.requests


def bulk(batcher: TokenBatcher, texts: list[str]) -> asyncio.Task[list[Classification]]:
    return asyncio.create_task(batcher.classify(texts, timeout_seconds=WAIT_SECONDS, lane="bulk"))


# Each is alone in its batch.
LONG = [text(number, 400) for number in (1, 2, 3)]


async def bulk_after_a_request(
    batcher: TokenBatcher, model: Divided
) -> asyncio.Task[list[Classification]]:
    """Begin bulk work beside a request on the other of two streams, and answer the request."""
    request = await busy(batcher, model)
    work = bulk(batcher, LONG)
    assert await model.next_batch() == LONG[:1]
    model.requests.release()
    assert await request == [text(0, 1)]
    return work


async def test_bulk_work_leaves_a_stream_to_requests_that_come() -> None:
    model = Divided()
    with batching(model, streams=2) as batcher:
        work = await bulk_after_a_request(batcher, model)
        second = await queued(batcher, text(4, 5))
        assert await model.next_batch() == [text(4, 5)]
        model.requests.release()
        model.permits.release(PLENTY)
        assert await second == [text(4, 5)]
        assert [each.revision for each in await work] == LONG


@pytest.mark.parametrize("streams", [1, 2])
async def test_bulk_work_takes_every_stream_while_no_request_comes(streams: int) -> None:
    model = Echo(permits=0)
    with batching(model, streams=streams) as batcher:
        work = bulk(batcher, LONG)
        begun = [await model.next_batch() for _ in range(streams)]
        assert sorted(begun) == [[one] for one in LONG[:streams]]
        model.permits.release(PLENTY)
        await work


async def test_bulk_work_takes_the_only_stream_in_turn_with_requests() -> None:
    model = Echo(permits=0)
    with batching(model, streams=1) as batcher:
        first = await busy(batcher, model)
        work = bulk(batcher, LONG)
        model.permits.release(PLENTY)
        await first
        assert [each.revision for each in await work] == LONG


async def test_bulk_work_takes_the_last_stream_some_time_after_the_last_request() -> None:
    model = Divided()
    with batching(model, streams=2, quiet_seconds=0.05) as batcher:
        work = await bulk_after_a_request(batcher, model)
        assert await model.next_batch() == LONG[1:2]
        model.permits.release(PLENTY)
        await work


def is_refused(batcher: TokenBatcher) -> bool:
    """Whether the batcher takes no more calls."""
    try:
        batcher.submit(
            [text(0, 1)], timeout_seconds=WAIT_SECONDS, lane="interactive", trace=None
        ).cancel()
    except ServiceUnavailable:
        return True
    return False


@pytest.mark.parametrize("end", ["drain", "close"])
async def test_batcher_ends_while_bulk_work_is_held_back(end: str) -> None:
    model = Divided()
    with batching(model, streams=2) as batcher:
        work = await bulk_after_a_request(batcher, model)
        # One stream is at bulk work, and the other waits beside the rest of it.
        ending = asyncio.create_task(asyncio.to_thread(getattr(batcher, end)))
        if end == "drain":
            assert await model.next_batch() == LONG[1:2]
        await until(lambda: is_refused(batcher))
        model.requests.release(PLENTY)
        model.permits.release(PLENTY)
        await ending
        if end == "drain":
            assert [each.revision for each in await work] == LONG
        else:
            with pytest.raises(ServiceUnavailable):
                await work
