"""Adaptive batching in a runner: what waits when a core is free becomes its next batch.

As in text-embeddings-inference there is no waiting window: an idle runner computes one text at
once, and a busy one finds company for the next text in its queue. A batch is cut by tokens.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from bentoml.exceptions import ServiceUnavailable
from tokenizers import Encoding

import metrics
from runners.packing import fits
from values import Classification, Version

# A text joins a batch only if it is at least so long as a share of the batch's longest: past that,
# more than half of its row would be padding.
MIN_FILL = 0.5
# So many texts are tokenised ahead of their batch: enough to find company of like length among, few
# enough that tokenising does not keep a core from computing.
LOOKAHEAD_TEXTS = 256
# How often a full queue is searched for texts that nobody waits for any more.
_SWEEP_SECONDS = 0.05


class Model(Protocol):
    """What computes the batches; `compute` is called from as many threads as there are streams."""

    def encode(self, texts: Sequence[str]) -> list[Encoding]: ...

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]: ...


@dataclass(slots=True, eq=False)
class _Call:
    """One call to the runner: its texts, and the answers as they come."""

    texts: Sequence[str]
    deadline: float
    answer: asyncio.Future[list[Classification]]
    submitted: float
    missing: int
    results: list[Classification | None] = field(default_factory=list)

    def is_over(self, now: float) -> bool:
        return self.answer.done() or now > self.deadline


@dataclass(slots=True, order=True)
class _Entry:
    """One text of a call. Ordered by length, which `TokenBatcher` keeps its queue by."""

    tokens: int
    number: int
    row: int = field(compare=False)
    encoding: Encoding = field(compare=False)
    call: _Call = field(compare=False)


class TokenBatcher:
    """Computes the texts of many calls together, on `streams` threads of its own."""

    def __init__(self, model: Model, version: Version, *, streams: int, max_queued: int) -> None:
        """`max_queued` texts may wait; a call past that is refused."""
        self._model = model
        self._version: Version = version
        self._max_queued = max_queued
        self._queued = 0
        self._calls: deque[_Call] = deque()
        self._entries: list[_Entry] = []
        self._next_number = 0
        self._swept = 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{version}-{n}", daemon=True)
            for n in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    async def classify(
        self, texts: Sequence[str], *, timeout_seconds: float
    ) -> list[Classification]:
        """Classify `texts`, at least one; in their order.

        Raises:
            ServiceUnavailable: too many texts wait already, the batcher was closed, or not all were
                computed in time; then what was not begun is left out.
        """
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        call = _Call(texts, now + timeout_seconds, loop.create_future(), now, len(texts))
        with self._changed:
            if self._closing:
                raise ServiceUnavailable("shutting down")
            if self._is_full(len(texts)) and now > self._swept + _SWEEP_SECONDS:
                self._swept = now
                self._sweep(now)
            if self._is_full(len(texts)):
                raise ServiceUnavailable(f"{self._queued} texts wait already")
            self._queued += len(texts)
            self._calls.append(call)
            self._changed.notify()
        # Cancelled or timed out, the future is done, and the threads pass over its texts.
        try:
            async with asyncio.timeout(timeout_seconds):
                return await call.answer
        except TimeoutError as error:
            raise ServiceUnavailable(f"not done in {timeout_seconds:.1f} s") from error

    def close(self) -> None:
        """Let the threads end after the batch that each is at; what still waits is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for call in {*self._calls, *(entry.call for entry in self._entries)}:
            _finish(call, ServiceUnavailable("shutting down"))

    def _is_full(self, more: int) -> bool:
        return bool(self._queued) and self._queued + more > self._max_queued

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._entries or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
            # All that waits, so that the next batch finds what is like it among many calls.
            while (call := self._next_call()) is not None:
                self._tokenise(call)
            batch = self._take()
            if batch:
                self._compute(batch)

    def _next_call(self) -> _Call | None:
        with self._changed:
            if not self._calls or len(self._entries) >= LOOKAHEAD_TEXTS:
                return None
            return self._calls.popleft()

    def _tokenise(self, call: _Call) -> None:
        if call.is_over(time.monotonic()):
            with self._changed:
                self._abandon(len(call.texts))
            return
        try:
            encodings = self._model.encode(call.texts)
        except Exception as error:  # noqa: BLE001  the edge of a thread: told to the caller
            with self._changed:
                self._queued -= len(call.texts)
            _finish(call, error)
            return
        call.results = [None] * len(call.texts)
        # The longest of a call first: they are what its answer would wait for at the end.
        rows = sorted(range(len(encodings)), key=lambda row: -len(encodings[row].ids))
        with self._changed:
            for row in rows:
                entry = _Entry(
                    len(encodings[row].ids), self._next_number, row, encodings[row], call
                )
                insort(self._entries, entry)
                self._next_number += 1
            self._changed.notify(len(encodings))

    def _take(self) -> list[_Entry]:
        """The next batch: the text that came first, and what is most like it in length."""
        now = time.monotonic()
        with self._changed:
            self._sweep_entries(now)
            waiting = self._entries
            if not waiting:
                return []
            first = min(range(len(waiting)), key=lambda index: waiting[index].number)
            start, end = _neighbourhood([entry.tokens for entry in waiting], first)
            batch = waiting[start:end]
            self._entries = waiting[:start] + waiting[end:]
            self._queued -= len(batch)
        for entry in batch:
            metrics.queue_wait.labels(self._version).observe(now - entry.call.submitted)
        return batch

    def _sweep(self, now: float) -> None:
        """Forget all that nobody waits for; under the lock, as what follows."""
        over = [call for call in self._calls if call.is_over(now)]
        if over:
            self._calls = deque(call for call in self._calls if not call.is_over(now))
            self._abandon(sum(len(call.texts) for call in over))
        self._sweep_entries(now)

    def _sweep_entries(self, now: float) -> None:
        waiting = [entry for entry in self._entries if not entry.call.is_over(now)]
        if len(waiting) < len(self._entries):
            self._abandon(len(self._entries) - len(waiting))
            self._entries = waiting

    def _abandon(self, texts: int) -> None:
        self._queued -= texts
        metrics.abandoned_texts.labels(self._version).inc(texts)

    def _compute(self, batch: list[_Entry]) -> None:
        metrics.batch_texts.labels(self._version).observe(len(batch))
        metrics.batch_tokens.labels(self._version).observe(len(batch) * batch[-1].tokens)
        try:
            with metrics.inference_duration.labels(self._version).time():
                results = self._model.compute([entry.encoding for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001  the edge of a thread: told to every caller
            for call in {entry.call for entry in batch}:
                _finish(call, error)
            return
        with self._changed:
            for entry, result in answered:
                entry.call.results[entry.row] = result
                entry.call.missing -= 1
        for call in {entry.call for entry in batch}:
            if not call.missing:
                _finish(call, [result for result in call.results if result is not None])


def _neighbourhood(lengths: Sequence[int], index: int) -> tuple[int, int]:
    """Where in the ascending `lengths` the batch around `index` starts and ends.

    It grows to the nearer neighbour, in length, as long as a batch of that shape is allowed.
    """
    start, end = index, index + 1
    while True:
        shorter = lengths[index] - lengths[start - 1] if start else None
        longer = lengths[end] - lengths[index] if end < len(lengths) else None
        texts = end - start + 1
        can_shrink = (
            shorter is not None
            and lengths[start - 1] >= MIN_FILL * lengths[end - 1]
            and fits(lengths[end - 1], texts)
        )
        can_grow = (
            longer is not None
            and lengths[start] >= MIN_FILL * lengths[end]
            and fits(lengths[end], texts)
        )
        if can_shrink and (not can_grow or (shorter or 0) <= (longer or 0)):
            start -= 1
        elif can_grow:
            end += 1
        else:
            return start, end


def _finish(call: _Call, outcome: list[Classification] | Exception) -> None:
    """Hand the outcome over to the event loop that waits for it, if it still does."""

    def hand_over() -> None:
        if call.answer.done():
            return
        if isinstance(outcome, Exception):
            call.answer.set_exception(outcome)
        else:
            call.answer.set_result(outcome)

    with suppress(RuntimeError):  # the loop was closed: nobody waits
        call.answer.get_loop().call_soon_threadsafe(hand_over)
