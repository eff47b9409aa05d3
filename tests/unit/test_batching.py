"""Adaptive batching: everyone gets what is theirs, nobody waits without need or pays for others."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
from bentoml.exceptions import ServiceUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from runners.batching import TokenBatcher
from runners.packing import MAX_BATCH_TEXTS, MAX_BATCH_TOKENS, fits
from runners.text_queue import LOOKAHEAD_TEXTS, MIN_FILL, TextQueue
from tests.unit.fakes import counter
from values import Classification

WAIT_SECONDS = 10.0
PLENTY = 1_000
MANY_TOKENS = 10**9

# A text is its number and then filler, so that its tokens tell which one it is.
NUMBERS = range(1_000)
TOKENIZER = Tokenizer(WordLevel({str(n): n for n in NUMBERS} | {"x": len(NUMBERS)}))
TOKENIZER.pre_tokenizer = WhitespaceSplit()


def text(number: int, tokens: int) -> str:
    return " ".join([str(number)] + ["x"] * (tokens - 1))


def length(of: str) -> int:
    return len(of.split())


class Echo:
    """Answers each text with itself, one batch a permit; remembers what it was given."""

    def __init__(self, permits: int = PLENTY) -> None:
        self.permits = threading.Semaphore(permits)
        self.started = SimpleQueue[list[str]]()
        self.encoded: list[str] = []
        self.batches: list[list[str]] = []
        self.unreadable: set[str] = set()
        self.poison: set[str] = set()

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        if self.unreadable & set(texts):
            raise ValueError("cannot be read")
        self.encoded += texts
        return TOKENIZER.encode_batch(list(texts))

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        batch = [" ".join(encoding.tokens) for encoding in encodings]
        self.batches.append(batch)
        self.started.put(batch)
        assert self.permits.acquire(timeout=WAIT_SECONDS)
        if self.poison & set(batch):
            raise ValueError("cannot be computed")
        return [
            Classification(echo, "fake", {"positive": 1.0}, length(echo), truncated=False)
            for echo in batch
        ]

    async def next_batch(self) -> list[str]:
        """Wait until a batch is being computed."""
        return await asyncio.to_thread(self.started.get, timeout=WAIT_SECONDS)

    def hold(self) -> None:
        """Use up what permits there are."""
        while self.permits.acquire(blocking=False):
            pass

    def computed(self) -> list[str]:
        return [one for batch in self.batches for one in batch]


@contextmanager
def batching(model: Echo, *, streams: int = 1, max_queued: int = PLENTY) -> Iterator[TokenBatcher]:
    batcher = TokenBatcher(model, "v1", TextQueue(max_queued, MANY_TOKENS), streams=streams)
    try:
        yield batcher
    finally:
        model.permits.release(PLENTY)
        batcher.close()


async def ask(
    batcher: TokenBatcher, texts: Sequence[str], timeout_seconds: float = WAIT_SECONDS
) -> list[str]:
    answers = await batcher.classify(texts, timeout_seconds=timeout_seconds)
    return [answer.revision for answer in answers]


async def queued(batcher: TokenBatcher, *texts: str) -> asyncio.Task[list[str]]:
    """A call that has handed its texts over."""
    task = asyncio.create_task(ask(batcher, texts))
    await asyncio.sleep(0)
    return task


async def busy(batcher: TokenBatcher, model: Echo) -> asyncio.Task[list[str]]:
    """A call that the only stream computes; what comes now waits until there is a permit."""
    call = await queued(batcher, text(0, 1))
    while text(0, 1) not in await model.next_batch():
        pass
    return call


def abandoned() -> float:
    return counter("model_abandoned_texts_total", version="v1")


CALLS = st.lists(
    st.lists(st.integers(1, 600) | st.integers(1, 40), min_size=1, max_size=25), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(CALLS, st.integers(1, 3))
def test_any_mix_of_calls_gets_its_answers_from_batches_within_the_budget(
    lengths: list[list[int]], streams: int
) -> None:
    numbers = itertools.count()
    calls = [[text(next(numbers), tokens) for tokens in call] for call in lengths]
    model = Echo()

    async def run() -> list[list[str]]:
        with batching(model, streams=streams) as batcher:
            return await asyncio.gather(*(ask(batcher, call) for call in calls))

    assert asyncio.run(run()) == calls
    assert sorted(model.computed()) == sorted(one for call in calls for one in call)
    for batch in model.batches:
        shortest, *_, longest = sorted([length(one) for one in batch] * 2)
        assert fits(longest, len(batch))
        assert shortest >= MIN_FILL * longest


async def test_an_idle_batcher_computes_a_text_at_once() -> None:
    model, seconds = Echo(), []
    texts = [text(number, 5) for number in range(50)]
    with batching(model, streams=2) as batcher:
        for one in texts:
            started = time.perf_counter()
            assert await ask(batcher, [one]) == [one]
            seconds.append(time.perf_counter() - started)
    assert model.batches == [[one] for one in texts]
    # The best of fifty, so that only a waiting window, and no busy machine, can make it long.
    assert min(seconds) < 0.005


async def test_texts_of_one_call_share_batches_up_to_the_limits() -> None:
    model = Echo()
    tiny = [text(number, 2) for number in range(MAX_BATCH_TEXTS + 1)]
    wide = [text(100 + number, 100) for number in range(MAX_BATCH_TOKENS // 100 + 1)]
    with batching(model) as batcher:
        assert await ask(batcher, [*tiny, *wide]) == [*tiny, *wide]
    # The longest first.
    assert [len(batch) for batch in model.batches] == [5, 1, 32, 1]


async def test_what_is_left_of_a_call_shares_a_batch_with_the_next_call() -> None:
    model = Echo(permits=0)
    large = [text(number, 40) for number in range(1, 14)]
    small = text(20, 40)
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, *large), await queued(batcher, small)]
        model.permits.release(PLENTY)
        assert await asyncio.gather(first, *calls) == [[text(0, 1)], large, [small]]
    assert model.batches[1:] == [large[:12], [large[12], small]]


async def test_texts_of_many_calls_that_waited_share_a_batch() -> None:
    model = Echo(permits=0)
    texts = [text(number, 8) for number in range(1, 17)]
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, one) for one in texts]
        model.permits.release(PLENTY)
        await asyncio.gather(first, *calls)
    assert [sorted(batch) for batch in model.batches[1:]] == [sorted(texts)]


async def test_no_more_is_tokenised_ahead_than_batches_are_chosen_from() -> None:
    model = Echo(permits=0)
    texts = [text(number % 1_000, 8) for number in range(2 * LOOKAHEAD_TEXTS)]
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, one) for one in texts]
        model.permits.release()
        await model.next_batch()
        assert len(model.encoded) == 1 + LOOKAHEAD_TEXTS
        model.permits.release(PLENTY)
        await asyncio.gather(first, *calls)


async def test_short_texts_do_not_pay_for_a_long_one() -> None:
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


async def test_what_waits_and_what_is_padding_is_counted() -> None:
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


async def test_a_long_text_is_not_starved_by_short_ones_that_keep_coming() -> None:
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


async def test_texts_of_a_caller_who_left_are_never_computed() -> None:
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
    # Not even tokenised.
    assert model.encoded == [text(0, 1), stays]
    assert abandoned() - before == 3


async def test_who_leaves_between_two_batches_takes_the_rest_away() -> None:
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
            await ask(batcher, [text(1, 5), text(2, 5)], timeout_seconds=0.1)
        model.permits.release(PLENTY)
        assert await first == [text(0, 1)]
        assert await ask(batcher, [text(3, 5)]) == [text(3, 5)]
    assert model.batches == [[text(0, 1)], [text(3, 5)]]
    assert abandoned() - before == 2


async def test_a_text_that_is_computed_past_its_deadline_is_refused() -> None:
    model = Echo(permits=0)
    with batching(model) as batcher:
        with pytest.raises(ServiceUnavailable):
            await ask(batcher, [text(1, 5)], timeout_seconds=0.05)
        model.permits.release(PLENTY)
        assert await ask(batcher, [text(2, 5)]) == [text(2, 5)]


async def test_too_many_waiting_texts_are_refused_until_some_are_computed() -> None:
    model = Echo(permits=0)
    with batching(model, max_queued=3) as batcher:
        for _ in range(3):
            model.hold()
            first = await busy(batcher, model)
            waiting = [await queued(batcher, text(number, 5)) for number in (1, 2)]
            for too_many in ([text(3, 5)] * 2, [text(3, 5)] * PLENTY):
                with pytest.raises(ServiceUnavailable, match="2 texts wait already"):
                    await ask(batcher, too_many)
            waiting.append(await queued(batcher, text(3, 5)))
            with pytest.raises(ServiceUnavailable, match="3 texts wait already"):
                await ask(batcher, [text(4, 5)])
            model.permits.release(PLENTY)
            assert await asyncio.gather(first, *waiting) == [
                [text(number, 5 if number else 1)] for number in range(4)
            ]


async def test_capacity_comes_back_when_callers_leave_or_fail() -> None:
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
            await ask(batcher, [text(5, 5)] * 2)
        waiting_too = await queued(batcher, text(5, 5))
        model.permits.release(PLENTY)
        assert await again == [text(0, 1)]
        assert await waiting == [text(4, 5)] * 3
        assert await waiting_too == [text(5, 5)]


async def test_capacity_comes_back_when_a_caller_leaves_between_two_batches() -> None:
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


async def test_capacity_comes_back_while_every_stream_is_busy() -> None:
    model, before = Echo(permits=0), abandoned()
    with batching(model, max_queued=1) as batcher:
        first = await busy(batcher, model)
        leaver = await queued(batcher, text(1, 5))
        with pytest.raises(ServiceUnavailable, match="1 texts wait already"):
            await ask(batcher, [text(2, 5)])
        leaver.cancel()
        while (stayer := await queued(batcher, text(3, 5))).done():
            # A full queue is searched twenty times a second, not for each call that is refused.
            with pytest.raises(ServiceUnavailable):
                await stayer
        assert abandoned() - before == 1
        model.permits.release(PLENTY)
        assert (await first, await stayer) == ([text(0, 1)], [text(3, 5)])


async def test_a_call_larger_than_the_bound_is_taken_when_nothing_waits() -> None:
    texts = [text(number, 5) for number in range(5)]
    with batching(Echo(), max_queued=1) as batcher:
        assert await ask(batcher, texts) == texts


async def test_what_cannot_be_encoded_fails_its_call_alone() -> None:
    model = Echo(permits=0)
    model.unreadable = {text(2, 5)}
    with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await queued(batcher, text(number, 5)) for number in (1, 2, 3)]
        model.permits.release(PLENTY)
        outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [list, list, ValueError, list]
        assert await ask(batcher, [text(4, 5)]) == [text(4, 5)]
    assert text(2, 5) not in model.computed()


async def test_what_cannot_be_encoded_was_not_abandoned() -> None:
    model, before = Echo(), abandoned()
    model.unreadable = {"unreadable"}
    with batching(model) as batcher, pytest.raises(ValueError, match="cannot be read"):
        await ask(batcher, ["unreadable"])
    assert abandoned() == before


class Forgetful(Echo):
    """Leaves a text out of its answers."""

    forgets = 1

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        return super().compute(encodings)[self.forgets :]


async def test_a_model_that_forgets_a_text_fails_its_callers_and_not_the_stream() -> None:
    model = Forgetful()
    with batching(model) as batcher:
        with pytest.raises(ValueError, match="shorter"):
            await ask(batcher, [text(1, 5)])
        model.forgets = 0
        assert await ask(batcher, [text(2, 5)]) == [text(2, 5)]


async def test_a_failed_batch_fails_all_that_shared_it_and_no_other() -> None:
    model = Echo(permits=0)
    # The last of a call's texts does not fit into its first batch and shares one with `company`.
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
        assert await ask(batcher, [*large, company]) == [*large, company]


async def test_what_is_left_of_a_failed_call_is_not_computed() -> None:
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
        assert await ask(batcher, [text(9, 5)]) == [text(9, 5)]
    # The stream may have taken the second before the loop told that the call had failed.
    assert texts[2] not in model.computed()


class Together(Echo):
    """Computes a batch only when as many others are being computed as there are streams."""

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
    asked = [texts] if calls == 1 else [[one] for one in texts]
    with batching(Together(3), streams=3) as batcher:
        assert await asyncio.gather(*(ask(batcher, call) for call in asked)) == asked


def inference_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return sorted(name for name in names if name.startswith("inference-"))


async def test_close_ends_the_threads_after_the_batch_at_hand() -> None:
    model = Echo(permits=0)
    batcher = TokenBatcher(model, "v1", TextQueue(PLENTY, MANY_TOKENS), streams=2)
    assert inference_threads() == ["inference-v1-0", "inference-v1-1"]
    call = await busy(batcher, model)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    model.permits.release()
    assert await call == [text(0, 1)]
    await closing
    assert inference_threads() == []


async def test_close_refuses_what_waits_and_what_comes_after() -> None:
    model = Echo(permits=0)
    # However many ask before the thread that closes it gets to run.
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


def test_a_loop_that_ended_does_not_end_the_batcher() -> None:
    model = Echo(permits=0)

    async def leave(batcher: TokenBatcher) -> None:
        await busy(batcher, model)

    with batching(model) as batcher:
        asyncio.run(leave(batcher))
        model.permits.release(PLENTY)
        assert asyncio.run(ask(batcher, [text(1, 5)])) == [text(1, 5)]
