"""A failure reaches only its own calls; a closed batcher leaves no thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from bentoml.exceptions import ServiceUnavailable
from tokenizers import Encoding

from core.types import Classification
from runners.batching import TokenBatcher
from runners.queue import TextQueue
from tests.unit.runners.echo import (
    MANY_TOKENS,
    PLENTY,
    WAIT_SECONDS,
    Echo,
    abandoned,
    batching,
    busy,
    classify,
    queued,
    text,
)


async def test_text_that_cannot_be_encoded_fails_only_its_call() -> None:
    model = Echo(permits=0)
    model.unreadable = {text(2, 5)}
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, text(number, 5)) for number in (1, 2, 3)]
        model.permits.release(PLENTY)
        outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [list, list, ValueError, list]
        assert await classify(batcher, [text(4, 5)]) == [text(4, 5)]
    assert text(2, 5) not in model.computed()


async def test_text_that_cannot_be_encoded_is_not_counted_as_abandoned() -> None:
    model, before = Echo(), abandoned()
    model.unreadable = {"unreadable"}
    with batching(model) as batcher, pytest.raises(ValueError, match="cannot be read"):
        await classify(batcher, ["unreadable"])
    assert abandoned() == before


class Forgetful(Echo):
    """Returns a result too few."""

    forgets = 1

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        return super().compute(encodings)[self.forgets :]


async def test_missing_result_fails_the_calls_and_not_the_stream() -> None:
    model = Forgetful()
    with batching(model) as batcher:
        with pytest.raises(ValueError, match="shorter"):
            await classify(batcher, [text(1, 5)])
        model.forgets = 0
        assert await classify(batcher, [text(2, 5)]) == [text(2, 5)]


async def test_failed_batch_fails_the_calls_that_shared_it_and_no_other() -> None:
    model = Echo(permits=0)
    # The last text of `large` does not fit into its first batch and shares one with `company`.
    large = [text(number, 40) for number in range(1, 14)]
    company, other = text(20, 40), text(21, 5)
    model.poison = {company}
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, *texts) for texts in (large, [company], [other])]
        model.permits.release(PLENTY)
        outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [list, ValueError, ValueError, list]
        model.poison = set()
        assert await classify(batcher, [*large, company]) == [*large, company]


async def test_rest_of_a_failed_call_is_not_computed() -> None:
    model = Echo(permits=0)
    texts = [text(number, 300) for number in range(1, 4)]
    model.poison = {texts[0]}
    with batching(model) as batcher:
        call = await queued(batcher, *texts)
        await model.next_batch()
        model.permits.release()
        with pytest.raises(ValueError, match="cannot be computed"):
            await call
        model.permits.release(PLENTY)
        assert await classify(batcher, [text(9, 5)]) == [text(9, 5)]
    # The stream may take the second text before the event loop fails the call.
    assert texts[2] not in model.computed()


class Together(Echo):
    """Computes a batch only once every stream has one to compute."""

    def __init__(self, streams: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(streams)

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        self.barrier.wait(WAIT_SECONDS)
        return super().compute(encodings)


@pytest.mark.parametrize("calls", [1, 3])
async def test_streams_compute_at_the_same_time(calls: int) -> None:
    # Too different in length to share a batch.
    texts = [text(number, tokens) for number, tokens in enumerate((1, 10, 100))]
    requests = [texts] if calls == 1 else [[alone] for alone in texts]
    with batching(Together(3), streams=3) as batcher:
        assert await asyncio.gather(*(classify(batcher, call) for call in requests)) == requests


def inference_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return sorted(name for name in names if name.startswith("inference-"))


async def test_close_ends_the_threads_after_their_current_batch() -> None:
    model = Echo(permits=0)
    batcher = TokenBatcher(model, "v1", TextQueue(PLENTY, MANY_TOKENS), streams=2)
    assert inference_threads() == ["inference-v1-0", "inference-v1-1"]
    call = await busy(batcher, model)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    model.permits.release()
    assert await call == [text(0, 1)]
    await closing
    assert inference_threads() == []


async def test_close_refuses_waiting_and_later_calls() -> None:
    model = Echo(permits=0)
    # Its queue takes all calls that come before the closing thread runs.
    batcher = TokenBatcher(model, "v1", TextQueue(10**9, MANY_TOKENS), streams=1)
    call = await busy(batcher, model)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    refused = [await queued(batcher, text(1, 5))]
    while not refused[-1].done():
        await asyncio.sleep(0.001)
        refused.append(await queued(batcher, text(1, 5)))
    model.permits.release(PLENTY)
    await closing
    assert await call == [text(0, 1)]
    for late in refused:
        with pytest.raises(ServiceUnavailable, match="shutting down"):
            await late


def test_batcher_outlives_an_event_loop_that_ended() -> None:
    model = Echo(permits=0)

    async def leave(batcher: TokenBatcher) -> None:
        await busy(batcher, model)

    with batching(model) as batcher:
        asyncio.run(leave(batcher))
        model.permits.release(PLENTY)
        assert asyncio.run(classify(batcher, [text(1, 5)])) == [text(1, 5)]
