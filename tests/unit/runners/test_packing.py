"""Packing puts each text into one batch of similar lengths, within limits."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runners.packing import MAX_BATCH_TEXTS, MAX_BATCH_TOKENS, fits, pack


@given(st.lists(st.integers(1, 600), max_size=200))
def test_every_text_is_in_one_batch_within_the_limits(lengths: list[int]) -> None:
    batches = pack(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= MAX_BATCH_TOKENS
        assert len(batch) <= MAX_BATCH_TEXTS
    # No batch reaches into the lengths of the next.
    for longer, shorter in itertools.pairwise(batches):
        assert min(lengths[i] for i in longer) >= max(lengths[i] for i in shorter)


def test_long_text_does_not_pad_short_ones() -> None:
    batches = pack([8] * 31 + [512])
    assert batches == [[31], list(range(31))]


def test_text_past_the_limit_is_a_batch_alone() -> None:
    assert fits(MAX_BATCH_TOKENS, 1)
    assert not fits(MAX_BATCH_TOKENS, 2)
    assert pack([MAX_BATCH_TOKENS + 1, 1]) == [[0], [1]]
