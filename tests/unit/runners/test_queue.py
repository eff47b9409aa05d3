"""The queue of a runner: lanes take turns; a full one leaves the other open."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from runners.lanes import LANES, Lane
from runners.queue import Call, TextQueue
from runners.windows import windows_of

TOKENIZER = Tokenizer(WordLevel({"x": 0, "y": 1}))
TOKENIZER.pre_tokenizer = WhitespaceSplit()
LONG = " ".join(["y"] * 400)  # alone in its batch


@pytest.fixture
async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def call(loop: asyncio.AbstractEventLoop, texts: list[str], lane: Lane = "interactive") -> Call:
    return Call(texts, lane, 10.0, loop.create_future(), 0.0)


def tokenise_all(queue: TextQueue) -> None:
    while (next_call := queue.next_call(1.0)) is not None:
        windows = [windows_of(text, next_call.long_text) for text in encode(next_call.texts)]
        queue.add_tokenised(next_call, windows)


def encode(texts: object) -> list[Encoding]:
    return TOKENIZER.encode_batch(list(texts))  # type: ignore[call-overload]


async def test_lanes_take_turns(loop: asyncio.AbstractEventLoop) -> None:
    queue = TextQueue(1_000, 10**6)
    bulk = call(loop, [LONG] * 20, "bulk")
    small = [call(loop, [LONG]) for _ in range(4)]
    for waiting in (bulk, *small):
        assert queue.add(waiting, 0.0)
    tokenise_all(queue)
    order = []
    while batch := queue.take(1.0):
        order += [entry.call for entry in batch]
    assert order[:8].count(bulk) == 4
    assert [taken for taken in order if taken is not bulk] == small
    assert order[8:] == [bulk] * 16


async def test_interactive_text_does_not_wait_for_untokenised_bulk_texts(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = TextQueue(10_000, 10**7)
    for _ in range(20):
        assert queue.add(call(loop, [LONG] * 100, "bulk"), 0.0)
    tokenise_all(queue)
    late = call(loop, [LONG])
    assert queue.add(late, 0.0)
    tokenise_all(queue)
    assert late in [entry.call for _ in LANES for entry in queue.take(1.0)]


async def test_batch_mixes_texts_of_both_lanes(loop: asyncio.AbstractEventLoop) -> None:
    queue = TextQueue(1_000, 10**6)
    calls = [call(loop, ["x y x"] * 5, lane) for lane in LANES]
    for waiting in calls:
        assert queue.add(waiting, 0.0)
    tokenise_all(queue)
    assert {entry.call for entry in queue.take(1.0)} == set(calls)
    assert not queue


@pytest.mark.parametrize(("max_texts", "max_tokens"), [(2, 10**6), (1_000, 210)])
async def test_full_lane_leaves_the_other_open(
    loop: asyncio.AbstractEventLoop, max_texts: int, max_tokens: int
) -> None:
    queue = TextQueue(max_texts, max_tokens)
    assert queue.add(call(loop, ["x" * 400], "bulk"), 0.0)
    assert queue.add(call(loop, ["x" * 400], "bulk"), 0.0)
    assert not queue.add(call(loop, ["x" * 400], "bulk"), 0.0)
    assert queue.add(call(loop, ["x" * 400]), 0.0)


async def test_room_of_a_taken_call_is_free_again_to_the_last_token(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = TextQueue(3, 30)
    for _ in range(5):
        # 3 + 2 + 2 tokens, which three texts do not share evenly.
        assert queue.add(call(loop, ["x x x", "x", "x"]), 0.0)
        assert not queue.add(call(loop, ["x"]), 0.0)
        tokenise_all(queue)
        while queue.take(1.0):
            pass
        assert queue.waiting("interactive") == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(LANES), st.integers(1, 30), st.sampled_from("aty")), max_size=40
    )
)
def test_each_text_is_taken_once_or_abandoned(
    requests: list[tuple[Lane, int, str]],
) -> None:
    """Calls are answered (a), cancelled (t), or past their deadline (y)."""
    loop = asyncio.new_event_loop()
    queue = TextQueue(200, 10**6)
    expected: dict[Call, int] = {}
    refused = gone = 0
    for lane, texts, fate in requests:
        submitted = Call(
            ["x y"] * texts, lane, 0.5 if fate == "y" else 10.0, loop.create_future(), 0.0
        )
        if not queue.add(submitted, 0.0):
            refused += texts
            continue
        if fate in "ty":
            gone += texts
            if fate == "t":
                submitted.answer.cancel()
        else:
            expected[submitted] = texts
    taken: dict[Call, int] = {}
    while queue:
        tokenise_all(queue)
        for entry in queue.take(1.0):
            taken[entry.call] = taken.get(entry.call, 0) + 1
    loop.close()
    assert taken == expected
    assert queue.abandoned == gone
    assert refused + gone + sum(taken.values()) == sum(texts for _, texts, _ in requests)
    assert [queue.waiting(lane) for lane in LANES] == [0, 0]
