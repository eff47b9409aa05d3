"""A model that answers each text with itself, and a batcher in front of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from core.types import Classification
from runners.batching import TokenBatcher
from runners.queue import TextQueue
from runners.windows import unread
from tests.unit.fakes import counter

WAIT_SECONDS = 40.0
PLENTY = 1_000
MANY_TOKENS = 10**9

# A text is its number and then filler, so that its tokens identify it.
NUMBERS = range(1_000)
TOKENIZER = Tokenizer(WordLevel({str(n): n for n in NUMBERS} | {"x": len(NUMBERS)}))
TOKENIZER.pre_tokenizer = WhitespaceSplit()


def text(number: int, tokens: int) -> str:
    return " ".join([str(number)] + ["x"] * (tokens - 1))


def length(text: str) -> int:
    return len(text.split())


class Echo:
    """Answers each text with itself, a batch for each permit; remembers its batches."""

    max_tokens = 512

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

    def refuse(self, token_count: int) -> Classification:
        return unread("refused", "fake", ("positive",), token_count)

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        batch = [" ".join(encoding.tokens) for encoding in encodings]
        self.batches.append(batch)
        self.started.put(batch)
        assert self.permits_of(batch).acquire(timeout=WAIT_SECONDS)
        if self.poison & set(batch):
            raise ValueError("cannot be computed")
        return [
            Classification(text, "fake", {"positive": 1.0}, length(text), truncated=False)
            for text in batch
        ]

    def permits_of(self, batch: Sequence[str]) -> threading.Semaphore:
        """What a batch waits for."""
        del batch
        return self.permits

    async def next_batch(self) -> list[str]:
        """Wait until a batch is being computed."""
        return await asyncio.to_thread(self.started.get, timeout=WAIT_SECONDS)

    def hold(self) -> None:
        """Use up all permits."""
        while self.permits.acquire(blocking=False):
            pass

    def computed(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@contextmanager
def batching(
    model: Echo, *, streams: int = 1, max_queued: int = PLENTY, quiet_seconds: float = 100.0
) -> Iterator[TokenBatcher]:
    queue = TextQueue(max_queued, MANY_TOKENS)
    batcher = TokenBatcher(model, "v1", queue, streams=streams, quiet_seconds=quiet_seconds)
    try:
        yield batcher
    finally:
        model.permits.release(PLENTY)
        batcher.close()


async def classify(
    batcher: TokenBatcher, texts: Sequence[str], timeout_seconds: float = WAIT_SECONDS
) -> list[str]:
    answers = await batcher.classify(texts, timeout_seconds=timeout_seconds)
    return [answer.revision for answer in answers]


async def queued(batcher: TokenBatcher, *texts: str) -> asyncio.Task[list[str]]:
    """Start a call and let it queue its texts."""
    task = asyncio.create_task(classify(batcher, texts))
    await asyncio.sleep(0)
    return task


async def busy(batcher: TokenBatcher, model: Echo) -> asyncio.Task[list[str]]:
    """Start a call that keeps the only stream busy until there is a permit."""
    call = await queued(batcher, text(0, 1))
    while text(0, 1) not in await model.next_batch():
        pass
    return call


def abandoned() -> float:
    return counter("model_abandoned_texts_total", version="v1")
