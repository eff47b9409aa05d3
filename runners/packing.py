"""Cuts texts into padded batches by their tokens, not by their count."""

from __future__ import annotations

from collections.abc import Sequence

# Rows times the longest row. One core was as fast on 16 texts of 24 tokens as on 32, and the next
# text waits less for a small batch to end.
MAX_BATCH_TOKENS = 512
MAX_BATCH_TEXTS = 32
# The shortest text of a batch has at least this share of the tokens of the longest: with less, more
# than half of its row would be padding.
MIN_FILL = 0.5


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """Pack texts of similar length; returns batches of indices into `lengths`.

    `lengths` are in tokens. A batch costs its rows times its longest row; that stays within
    `MAX_BATCH_TOKENS` unless one text alone is longer. The longest texts come first, so that the
    cores that wait at the end wait for a cheap batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        batch = batches[-1] if batches else []
        if not batch or not fits(lengths[batch[0]], len(batch) + 1):
            batches.append([index])
        else:
            batch.append(index)
    return batches


def fits(longest: int, texts: int) -> bool:
    """Whether so many texts, the longest of `longest` tokens, may be one batch."""
    return texts == 1 or (texts <= MAX_BATCH_TEXTS and texts * longest <= MAX_BATCH_TOKENS)


def neighbourhood(lengths: Sequence[int], index: int) -> tuple[int, int]:
    """The start and end, in the ascending `lengths`, of the batch around `index`.

    The batch grows towards the neighbour that is closer in length while its shape is allowed.
    """
    start, end = index, index + 1
    while True:
        shorter = lengths[index] - lengths[start - 1] if start else None
        longer = lengths[end] - lengths[index] if end < len(lengths) else None
        texts = end - start + 1
        can_start_earlier = (
            shorter is not None
            and lengths[start - 1] >= MIN_FILL * lengths[end - 1]
            and fits(lengths[end - 1], texts)
        )
        can_end_later = (
            longer is not None
            and lengths[start] >= MIN_FILL * lengths[end]
            and fits(lengths[end], texts)
        )
        if can_start_earlier and (not can_end_later or (shorter or 0) <= (longer or 0)):
            start -= 1
        elif can_end_later:
            end += 1
        else:
            return start, end
