"""Long texts: windows, their combination, and the queue that holds them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from core.types import MAX_TOKEN_COUNT, Classification, LongText
from runners.batching import TokenBatcher
from runners.classifier import softmax
from runners.lanes import INTERACTIVE_TOKENS, estimated_tokens
from runners.queue import TextQueue
from runners.windows import MAX_WINDOWS, overlap_of, unread, windows_of

WINDOW = 34  # 32 words and two marks
OVERLAP = overlap_of(WINDOW)
STEP = WINDOW - 2 - OVERLAP


def make_tokenizer() -> Tokenizer:
    words = {"?": 0, "<": 1, ">": 2} | {f"w{number}": number + 3 for number in range(8_000)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing("< $A >", None, [("<", 1), (">", 2)])
    tokenizer.enable_truncation(WINDOW, stride=OVERLAP)
    return tokenizer


TOKENIZER = make_tokenizer()


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def encoded(count: int) -> Encoding:
    return TOKENIZER.encode(words(count))


class Model:
    """Calls a row the more positive, the greater its second token is."""

    max_tokens = WINDOW

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        return TOKENIZER.encode_batch(list(texts))

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        self.batches.append(len(encodings))
        return [classified(encoding) for encoding in encodings]

    def refuse(self, token_count: int) -> Classification:
        return unread("r", "fake", ("negative", "positive"), token_count)


def classified(encoding: Encoding) -> Classification:
    negative, positive = softmax(np.array([0.5, encoding.ids[1] / 50])).tolist()
    scores = {"negative": negative, "positive": positive}
    return Classification(
        "r", "fake", scores, len(encoding.ids), truncated=bool(encoding.overflowing)  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "long_text", "windows", "tokens", "unread_rest"),
    [
        (1, "truncate", 1, 3, False),
        (1, "windows", 1, 3, False),
        (1, "refuse", 1, 3, False),
        (32, "truncate", 1, 34, False),
        (32, "windows", 1, 34, False),
        (32, "refuse", 1, 34, False),
        (33, "truncate", 1, 34, True),
        (33, "windows", 2, 35, False),
        (33, "refuse", 0, 35, True),
        (32 + STEP, "windows", 2, 34 + STEP, False),
        (33 + STEP, "windows", 3, 35 + STEP, False),
        (7_000, "windows", MAX_WINDOWS, 7_002, True),
        (7_000, "refuse", 0, 7_002, True),
        (7_000, "truncate", 1, 34, True),
        (40_000, "refuse", 0, MAX_TOKEN_COUNT, True),
        (32 + STEP * (MAX_WINDOWS - 1), "windows", MAX_WINDOWS, 34 + STEP * 127, False),
    ],
)
def test_windows_of_a_text(
    count: int, long_text: LongText, windows: int, tokens: int, unread_rest: bool
) -> None:
    text = windows_of(encoded(count), long_text)
    assert (len(text.encodings), text.token_count, text.unread) == (windows, tokens, unread_rest)


@pytest.mark.parametrize("count", [33, 40, 60, 61, 200, 999])
def test_every_token_of_a_long_text_is_in_a_window(count: int) -> None:
    text = windows_of(encoded(count), "windows")
    seen = {token for encoding in text.encodings for token in encoding.tokens}
    assert seen == {"<", ">", *words(count).split()}


@pytest.mark.parametrize("count", [33, 40, 60, 61, 200, 999])
def test_result_is_the_token_weighted_mean_of_logits(count: int) -> None:
    text = windows_of(encoded(count), "windows")
    logits = np.array([[0.5, encoding.ids[1] / 50] for encoding in text.encodings])
    weights = [len(encoding.ids) for encoding in text.encodings]
    joined = text.join([classified(encoding) for encoding in text.encodings])
    expected = softmax(np.average(logits, axis=0, weights=weights))
    assert list(joined.scores.values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert math.fsum(joined.scores.values()) == pytest.approx(1)
    assert (joined.windows, joined.token_count) == (len(weights), count + 2)
    assert joined.truncated is False


def test_windows_that_are_certain_of_opposites_are_joined() -> None:
    text = windows_of(encoded(33), "windows")
    certain = [
        Classification("r", "e", {"negative": 1.0, "positive": 0.0}, 34, truncated=True),
        Classification("r", "e", {"negative": 0.0, "positive": 1.0}, 7, truncated=False),
    ]
    assert text.join(certain).sentiment == "negative"


async def classify(
    texts: Sequence[str], long_text: LongText
) -> tuple[list[Classification], TextQueue, Model]:
    model, queue = Model(), TextQueue(1_000, 1_000_000)
    batcher = TokenBatcher(model, "v1", queue, streams=2)
    try:
        results = await batcher.classify(texts, timeout_seconds=20, long_text=long_text)
    finally:
        batcher.close()
    return results, queue, model


@pytest.mark.parametrize("counts", [[1], [33], [500], [33, 1, 500], [1, 2, 3], [500] * 5])
async def test_batcher_answers_each_text_with_its_windows_joined(counts: list[int]) -> None:
    results, queue, model = await classify([words(count) for count in counts], "windows")
    for count, result in zip(counts, results, strict=True):
        text = windows_of(encoded(count), "windows")
        assert result == text.join([classified(encoding) for encoding in text.encodings])
    assert sum(model.batches) == sum(result.windows for result in results)
    assert (len(queue), queue.waiting("bulk"), bool(queue)) == (0, 0, False)


@pytest.mark.parametrize("counts", [[33], [33, 500], [1, 33], [33, 1, 500, 2]])
async def test_batcher_refuses_long_texts_without_computing_them(counts: list[int]) -> None:
    results, queue, model = await classify([words(count) for count in counts], "refuse")
    assert [result.windows for result in results] == [int(count <= 32) for count in counts]
    assert [result.token_count for result in results] == [count + 2 for count in counts]
    assert sum(model.batches) == sum(count <= 32 for count in counts)
    assert (len(queue), bool(queue)) == (0, False)


async def test_many_windows_wait_in_the_bulk_lane_and_leave_with_their_call() -> None:
    """Rare words have more tokens than estimated; they must not delay short texts."""
    model, queue = Model(), TextQueue(1_000, 1_000_000)
    batcher = TokenBatcher(model, "v1", queue, streams=0)
    text = words(2_000).replace("w", "")  # a token for every few characters
    options = {"timeout_seconds": 20.0, "trace": None}
    answer = batcher.submit([text[:2_000]], lane="interactive", long_text="windows", **options)  # type: ignore[arg-type]
    [call] = queue.calls()
    queue.next_call(0.0)
    windows = [windows_of(encoding, "windows") for encoding in model.encode(call.texts)]
    queue.add_tokenised(call, windows)
    rows = len(windows[0].encodings)
    assert call.tokens > 0
    assert call.lane == ("bulk" if call.tokens > INTERACTIVE_TOKENS else "interactive")
    assert len(queue) == queue.waiting(call.lane) == rows > 10
    answer.cancel()
    await asyncio.sleep(0)
    assert queue.take(0.0) == []
    assert (len(queue), queue.abandoned) == (0, rows)


@pytest.mark.parametrize(
    ("characters", "window", "long_text", "tokens"),
    [
        (40, 512, "truncate", 12),
        (5_000, 512, "truncate", 512),
        (5_000, None, "truncate", 512),
        (5_000, 2_048, "truncate", 1_252),
        (40_000, 2_048, "truncate", 2_048),
        (40_000, 8_192, "refuse", 8_192),
        (40_000, 512, "windows", 10_002),
        (200_000, 512, "windows", 50_002),
        (200_000, 8_192, "windows", 50_002),
        (40, 512, "windows", 12),
    ],
)
def test_estimate_follows_the_window(
    characters: int, window: int | None, long_text: LongText, tokens: int
) -> None:
    assert estimated_tokens(["x" * characters], window, long_text) == tokens
