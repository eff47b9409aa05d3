"""Long texts: the overlapping windows of a text, and its result from theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenizers import Encoding

from core.types import MAX_TOKEN_COUNT, Classification, LongText, Sentiment

# Neighbouring windows share so many tokens, so that a sentence at a border is whole in one of them.
OVERLAP_TOKENS = 64
# 200,000 characters of English are some 100 windows of 512 tokens. What follows is not read, and
# the result says so.
MAX_WINDOWS = 128


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one text that are computed: none if the text is refused."""

    encodings: Sequence[Encoding]
    token_count: int  # of the whole text
    unread: bool  # whether tokens of the text are in none of the windows

    def join(self, results: Sequence[Classification]) -> Classification:
        """The result of the text: the token-weighted mean of the logits of its windows.

        The logarithms of a window's probabilities are its logits less a constant, which is the same
        for every class and so changes no probability of the mean.
        """
        first, count = results[0], len(results)
        if count == 1:
            return first
        weights = [len(encoding.ids) for encoding in self.encodings]
        means = {
            sentiment: sum(
                weight * math.log(max(result.scores[sentiment], 1e-300))
                for weight, result in zip(weights, results, strict=True)
            )
            / sum(weights)
            for sentiment in first.scores
        }
        greatest = max(means.values())
        exponentials = {name: math.exp(mean - greatest) for name, mean in means.items()}
        total = sum(exponentials.values())
        return replace(
            first,
            scores={name: value / total for name, value in exponentials.items()},
            token_count=self.token_count,
            truncated=self.unread,
            windows=count,
        )


def windows_of(encoding: Encoding, long_text: LongText) -> Windows:
    """Choose the windows of a text that are computed.

    `encoding` is its first window, with the others as `overflowing`.
    """
    overflowing = encoding.overflowing
    if not overflowing:
        return Windows([encoding], len(encoding.ids), unread=False)
    if long_text == "truncate":
        return Windows([encoding], len(encoding.ids), unread=True)
    every = [encoding, *overflowing]
    tokens = sum(len(window.ids) - _marks(window) for window in every)
    tokens += _marks(encoding) - overlap_of(len(encoding.ids)) * len(overflowing)
    token_count = min(tokens, MAX_TOKEN_COUNT)
    if long_text == "refuse":
        return Windows([], token_count, unread=True)
    return Windows(every[:MAX_WINDOWS], token_count, unread=len(every) > MAX_WINDOWS)


def overlap_of(max_tokens: int) -> int:
    """The tokens that neighbouring windows share, in a window of `max_tokens`."""
    return min(OVERLAP_TOKENS, max_tokens // 8)


def unread(
    revision: str, engine: str, labels: Sequence[Sentiment], token_count: int
) -> Classification:
    """The result of a text that is refused because of its length: no window, and equal scores."""
    scores = dict.fromkeys(labels, 1 / len(labels))
    return Classification(revision, engine, scores, token_count, truncated=True, windows=0)


def _marks(encoding: Encoding) -> int:
    return sum(encoding.special_tokens_mask)
