"""Adaptive batching: texts that wait when a core is free are its next batch.

As in text-embeddings-inference there is no waiting window: an idle runner computes a text at once,
and a busy one batches the texts in its queue. The size of a batch is limited in tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from bentoml.exceptions import ServiceUnavailable
from opentelemetry.trace import SpanContext
from tokenizers import Encoding

from core import metrics, tracing
from core.heartbeat import Work
from core.types import Classification, LongText, Version
from runners.cpu import lower_priority
from runners.lanes import LANES, Lane
from runners.queue import Call, Entry, TextQueue
from runners.windows import windows_of

# While requests come, one stream is free of bulk work: a text waits for no batch of long texts, and
# the version that has more bulk work to do, such as a job's, does not look slower in a rollout.
QUIET_SECONDS = 10.0


class Model(Protocol):
    """Tokenises and computes; each stream calls `compute` from its own thread."""

    @property
    def max_tokens(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[Encoding]: ...

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]: ...

    def refuse(self, token_count: int) -> Classification: ...


class TokenBatcher:
    """Computes the texts of many calls together, on `streams` threads of its own."""

    def __init__(
        self,
        model: Model,
        version: Version,
        queue: TextQueue,
        *,
        streams: int,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        """`quiet_seconds` after the last request, bulk work may take every stream."""
        self._model = model
        self._version: Version = version
        self._queue = queue
        self._abandoned = 0
        self._closing = False
        self._draining = False
        self._bulk_streams = 0
        self._quiet_seconds = quiet_seconds
        self._changed = threading.Condition()
        self._works: dict[int, tuple[int | None, float, float]] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{version}-{n}", daemon=True)
            for n in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    async def classify(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane = "interactive",
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Classify `texts`, at least one; the results are in their order.

        Raises:
            ServiceUnavailable: too many texts wait already, the batcher is closing, or the texts
                were not computed in time; those that were not begun are dropped.
        """
        # A cancellation or timeout ends the future, and the threads skip the texts of the call.
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self.submit(
                    texts,
                    timeout_seconds=timeout_seconds,
                    lane=lane,
                    trace=tracing.current(),
                    long_text=long_text,
                )
        except TimeoutError as error:
            raise ServiceUnavailable(f"not done in {timeout_seconds:.1f} s") from error

    def submit(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float,
        lane: Lane,
        trace: SpanContext | None,
        long_text: LongText = "truncate",
    ) -> asyncio.Future[list[Classification]]:
        """Put `texts`, at least one, into the queue; the future gets the results in their order.

        Texts whose future is done, or that were not begun within `timeout_seconds`, are dropped;
        the future of the latter is never done.

        Raises:
            ServiceUnavailable: too many texts wait already, or the batcher is closing.
        """
        now = time.monotonic()
        call = Call(
            texts,
            lane,
            now + timeout_seconds,
            asyncio.get_running_loop().create_future(),
            now,
            trace,
            tracing.now_ns(),
            long_text=long_text,
            window=self._model.max_tokens,
        )
        with self._changed:
            if self._closing or self._draining:
                raise ServiceUnavailable("shutting down")
            has_room = self._queue.add(call, now)
            self._count()
            if not has_room:
                raise ServiceUnavailable(f"{self._queue.waiting(lane)} texts wait already")
            self._changed.notify()
        return call.answer

    def progress(self) -> Mapping[int, Work]:
        """The work that each thread is at."""
        now = time.monotonic()
        return {
            thread: Work(number, busy + (now - since if number is not None else 0.0))
            for thread, (number, since, busy) in self._works.copy().items()
        }

    def drain(self) -> None:
        """Answer the calls that wait, refuse new ones, and wait for the threads to end."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """End each thread after its current batch, and refuse the calls that still wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        error = ServiceUnavailable("shutting down")
        _finish([(call, error) for call in self._queue.calls()])

    def _work(self) -> None:
        lower_priority()
        thread, numbers, busy = threading.get_native_id(), itertools.count(), 0.0
        began = time.monotonic()
        while True:
            busy += time.monotonic() - began
            self._works[thread] = None, 0.0, busy
            with self._changed:
                while not (self._closing or self._draining or self._queue.has_work(self._lanes())):
                    # For a call, or until bulk work may take every stream.
                    self._changed.wait(self._quiet_seconds if self._queue else None)
                if self._closing or (self._draining and not self._queue):
                    return
            began = time.monotonic()
            self._works[thread] = next(numbers), began, busy
            # Tokenise all calls that wait, so that the batch has many texts to choose from.
            while (call := self._next_call()) is not None:
                self._tokenise(call)
                self._works[thread] = next(numbers), began, busy
            batch = self._take()
            if batch:
                self._compute(batch)
            if _is_bulk(batch):
                with self._changed:
                    self._bulk_streams -= 1
                    self._changed.notify()

    def _lanes(self) -> Collection[Lane]:
        """The lanes that one more stream may take a batch of; all of a model with one stream."""
        is_quiet = time.monotonic() - self._queue.interactive_at > self._quiet_seconds
        leaves_one = self._bulk_streams < max(1, len(self._threads) - 1)
        return LANES if leaves_one or is_quiet or self._draining else ("interactive",)

    def _next_call(self) -> Call | None:
        with self._changed:
            call = self._queue.next_call(time.monotonic())
            self._count()
            return call

    def _tokenise(self, call: Call) -> None:
        began_ns = tracing.now_ns()
        try:
            encodings = self._model.encode(call.texts)
            windows = [windows_of(encoding, call.long_text) for encoding in encodings]
        except Exception as error:  # noqa: BLE001  the edge of a thread: the caller gets it
            with self._changed:
                self._queue.forget(call)
            _finish([(call, error)])
            return
        tracing.record("tokenise", call.trace, began_ns, {"texts": len(call.texts)})
        with self._changed:
            self._queue.add_tokenised(call, windows)
            self._changed.notify(call.rows)
        if not call.rows:
            _finish([(call, self._results(call))])

    def _results(self, call: Call) -> list[Classification]:
        """The results of a call whose rows are all computed, one for each text."""
        rows = iter(call.results)
        return [
            windows.join([row for row in islice(rows, count) if row is not None])
            if (count := len(windows.encodings))
            else self._model.refuse(windows.token_count)
            for windows in call.windows
        ]

    def _take(self) -> list[Entry]:
        now = time.monotonic()
        with self._changed:
            batch = self._queue.take(now, self._lanes())
            self._count()
            self._bulk_streams += _is_bulk(batch)
        for entry in batch:
            metrics.queue_wait.labels(self._version).observe(now - entry.call.submitted)
        if tracing.is_on():
            for call in {entry.call for entry in batch}:
                tracing.record("queue", call.trace, call.submitted_ns)
        return batch

    def _count(self) -> None:
        metrics.queued_texts.labels(self._version).set(len(self._queue))
        if newly_abandoned := self._queue.abandoned - self._abandoned:
            self._abandoned = self._queue.abandoned
            metrics.abandoned_texts.labels(self._version).inc(newly_abandoned)

    def _compute(self, batch: list[Entry]) -> None:
        calls = {entry.call for entry in batch}
        padded_tokens = len(batch) * batch[-1].tokens
        text_tokens = sum(entry.tokens for entry in batch)
        metrics.batch_texts.labels(self._version).observe(len(batch))
        metrics.batch_tokens.labels(self._version).observe(padded_tokens)
        metrics.tokens.labels(self._version, "text").inc(text_tokens)
        metrics.tokens.labels(self._version, "padding").inc(padded_tokens - text_tokens)
        began_ns = tracing.now_ns()
        try:
            with metrics.inference_duration.labels(self._version).time():
                results = self._model.compute([entry.encoding for entry in batch])
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001  the edge of a thread: each caller gets it
            _finish([(call, error) for call in calls])
            return
        if tracing.is_on():
            attributes = {"batch.texts": len(batch), "batch.tokens": padded_tokens}
            for call in calls:
                tracing.record("inference", call.trace, began_ns, attributes)
        with self._changed:
            for entry, result in pairs:
                entry.call.results[entry.row] = result
                entry.call.missing -= 1
        _finish([(call, self._results(call)) for call in calls if not call.missing])


def _is_bulk(batch: Sequence[Entry]) -> bool:
    return bool(batch) and all(entry.call.lane == "bulk" for entry in batch)


def _finish(outcomes: Sequence[tuple[Call, list[Classification] | Exception]]) -> None:
    """Give the outcomes to the callers that still wait, together, in their event loop."""

    def set_outcomes() -> None:
        for call, outcome in outcomes:
            if call.answer.done():
                continue
            if isinstance(outcome, Exception):
                call.answer.set_exception(outcome)
            else:
                call.answer.set_result(outcome)

    if outcomes:
        with suppress(RuntimeError):  # the loop was closed, so no caller waits
            outcomes[0][0].answer.get_loop().call_soon_threadsafe(set_outcomes)
