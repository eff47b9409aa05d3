"""Calls that are cancelled, late or refused cost the other calls nothing."""

from __future__ import annotations

import asyncio

import pytest
from bentoml.exceptions import ServiceUnavailable

from tests.unit.runners.echo import PLENTY, Echo, abandoned, batching, busy, classify, queued, text


async def test_texts_of_a_cancelled_call_are_not_computed() -> None:
    model, before = Echo(permits=0), abandoned()
    left, stays = [text(number, 5) for number in (1, 2, 3)], text(4, 5)
    with batching(model) as batcher:
        first = await busy(batcher, model)
        leaver, stayer = await queued(batcher, *left), await queued(batcher, stays)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        model.permits.release(PLENTY)
        assert await first == [text(0, 1)]
        assert await stayer == [stays]
    assert model.batches == [[text(0, 1)], [stays]]
    # They are not even tokenised.
    assert model.encoded == [text(0, 1), stays]
    assert abandoned() - before == 3


async def test_rest_of_a_call_cancelled_between_two_batches_is_not_computed() -> None:
    model, before = Echo(permits=0), abandoned()
    texts = [text(number, 300) for number in range(1, 5)]
    with batching(model) as batcher:
        leaver = await queued(batcher, *texts)
        assert await model.next_batch() == texts[:1]
        stayer = await queued(batcher, text(9, 5))
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        model.permits.release(PLENTY)
        assert await stayer == [text(9, 5)]
    assert model.batches == [texts[:1], [text(9, 5)]]
    assert abandoned() - before == 3


async def test_texts_past_their_deadline_are_refused_and_not_computed() -> None:
    model, before = Echo(permits=0), abandoned()
    with batching(model) as batcher:
        first = await busy(batcher, model)
        with pytest.raises(ServiceUnavailable, match=r"not done in 0\.1 s"):
            await classify(batcher, [text(1, 5), text(2, 5)], timeout_seconds=0.1)
        model.permits.release(PLENTY)
        assert await first == [text(0, 1)]
        assert await classify(batcher, [text(3, 5)]) == [text(3, 5)]
    assert model.batches == [[text(0, 1)], [text(3, 5)]]
    assert abandoned() - before == 2


async def test_text_that_is_computed_past_its_deadline_is_refused() -> None:
    model = Echo(permits=0)
    with batching(model) as batcher:
        with pytest.raises(ServiceUnavailable):
            await classify(batcher, [text(1, 5)], timeout_seconds=0.05)
        model.permits.release(PLENTY)
        assert await classify(batcher, [text(2, 5)]) == [text(2, 5)]


async def test_texts_past_the_bound_are_refused_until_some_are_computed() -> None:
    model = Echo(permits=0)
    with batching(model, max_queued=3) as batcher:
        for _ in range(3):
            model.hold()
            first = await busy(batcher, model)
            waiting = [await queued(batcher, text(number, 5)) for number in (1, 2)]
            for too_many in ([text(3, 5)] * 2, [text(3, 5)] * PLENTY):
                with pytest.raises(ServiceUnavailable, match="2 texts wait already"):
                    await classify(batcher, too_many)
            waiting.append(await queued(batcher, text(3, 5)))
            with pytest.raises(ServiceUnavailable, match="3 texts wait already"):
                await classify(batcher, [text(4, 5)])
            model.permits.release(PLENTY)
            assert await asyncio.gather(first, *waiting) == [
                [text(number, 5 if number else 1)] for number in range(4)
            ]


async def test_capacity_is_free_again_when_calls_are_cancelled_or_fail() -> None:
    model = Echo(permits=0)
    model.unreadable = {"unreadable"}
    with batching(model, max_queued=4) as batcher:
        first = await busy(batcher, model)
        leaver = await queued(batcher, text(1, 5), text(2, 5))
        failing = await queued(batcher, "unreadable")
        last = await queued(batcher, text(3, 5))
        leaver.cancel()
        model.permits.release(PLENTY)
        assert (await first, await last) == ([text(0, 1)], [text(3, 5)])
        with pytest.raises(ValueError, match="cannot be read"):
            await failing
        model.hold()
        again = await busy(batcher, model)
        waiting = await queued(batcher, *[text(4, 5)] * 3)
        with pytest.raises(ServiceUnavailable, match="3 texts wait already"):
            await classify(batcher, [text(5, 5)] * 2)
        waiting_too = await queued(batcher, text(5, 5))
        model.permits.release(PLENTY)
        assert await again == [text(0, 1)]
        assert await waiting == [text(4, 5)] * 3
        assert await waiting_too == [text(5, 5)]


async def test_capacity_is_free_again_when_a_call_is_cancelled_between_two_batches() -> None:
    model = Echo(permits=0)
    with batching(model, max_queued=4) as batcher:
        leaver = await queued(batcher, *[text(number, 300) for number in range(1, 5)])
        await model.next_batch()
        leaver.cancel()
        stayer = await queued(batcher, text(5, 5))
        model.permits.release(2)
        assert await stayer == [text(5, 5)]
        again = await busy(batcher, model)
        waiting = [await queued(batcher, text(number, 5)) for number in range(6, 10)]
        model.permits.release(PLENTY)
        await asyncio.gather(again, *waiting)


async def test_capacity_of_a_cancelled_call_is_free_again_while_every_stream_is_busy() -> None:
    model, before = Echo(permits=0), abandoned()
    with batching(model, max_queued=1) as batcher:
        first = await busy(batcher, model)
        leaver = await queued(batcher, text(1, 5))
        with pytest.raises(ServiceUnavailable, match="1 texts wait already"):
            await classify(batcher, [text(2, 5)])
        leaver.cancel()
        while (stayer := await queued(batcher, text(3, 5))).done():
            # A full queue is searched twenty times a second, not at each refusal.
            with pytest.raises(ServiceUnavailable):
                await stayer
        assert abandoned() - before == 1
        model.permits.release(PLENTY)
        assert (await first, await stayer) == ([text(0, 1)], [text(3, 5)])


async def test_call_larger_than_the_bound_is_taken_by_an_empty_lane() -> None:
    texts = [text(number, 5) for number in range(5)]
    with batching(Echo(), max_queued=1) as batcher:
        assert await classify(batcher, texts) == texts
