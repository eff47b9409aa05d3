"""Scores chunks with the runners of the service, in the time that they have left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from core.errors import UnavailableError
from core.types import Classification, LongText, RunnerDescription, Version
from runners.lanes import USUAL_WINDOW, Lane, pieces
from scoring.lost_texts import HARMLESS, LostTexts, RunnersLost
from scoring.outputs import NO_RESULT, Scores

# About four batches of a runner: an interactive request waits for no more of a job than that.
PIECE_TOKENS = 2_048
# A piece waits for an idle moment, but not for ever: a job goes on under any load.
MAX_WAIT_SECONDS = 1.0
POLL_SECONDS = 0.01
# Between two tries of a piece for which there was no room.
MAX_RETRY_SECONDS = 2.0


class Runner(Protocol):
    @property
    def is_idle(self) -> bool: ...

    async def wait_until_described(self) -> RunnerDescription: ...

    def admit(
        self, texts: Sequence[str], long_text: LongText = "truncate", *, lane: Lane | None = None
    ) -> AbstractContextManager[None]: ...

    async def classify(
        self, texts: Sequence[str], long_text: LongText = "truncate", *, lane: Lane | None = None
    ) -> list[Classification]: ...


class _Lost(Exception):
    """Runners ended while they had the texts."""


class ModelChanged(Exception):
    """A runner answered with other weights than those that the job began with."""


class SpareScorer:
    """A `ChunkScorer` for a thread beside the event loop `loop`, on which the runners are asked."""

    chunks_ahead = 0

    def __init__(
        self,
        runners: Mapping[Version, Runner],
        revisions: Mapping[Version, str],
        *,
        check: Callable[[], None],
        waiting: Callable[[UnavailableError, float], None],
        lost: Mapping[Version, LostTexts],
        long_text: LongText = "truncate",
    ) -> None:
        """`check` raises if the job shall stop; `lost` is what is known of its earlier turns.

        `waiting` is told, in a thread, why a runner is waited for, and for how many seconds; it
        raises if the job shall not wait for it here.
        """
        self.identities = revisions
        self._runners = {version: runners[version] for version in revisions}
        self._long_text: LongText = long_text
        self._check = check
        self._waiting = waiting
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._pending: Future[Scores] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the chunk that is being scored, and begin no other."""
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()

    def begin(self, texts: Sequence[str]) -> Callable[[], Scores]:
        """Score `texts`; the thread waits for the result.

        Raises:
            ModelChanged: another model answered.
            RunnersLost: a runner ended that had nothing but a harmless text.
            TooManyDeadlyTexts: too many texts have ended runners.
            CancelledError: `stop` was called.
        """
        pending = asyncio.run_coroutine_threadsafe(self._score(texts), self._loop)
        self._pending = pending
        if self._stopped:
            pending.cancel()
        return pending.result

    async def _score(self, texts: Sequence[str]) -> Scores:
        tasks = [asyncio.create_task(self._score_by(version, texts)) for version in self._runners]
        try:
            scores = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            # Else its last words might come after those of the job.
            await asyncio.gather(*tasks, return_exceptions=True)
        return dict(zip(self._runners, scores, strict=True))

    async def _score_by(self, version: Version, texts: Sequence[str]) -> list[Classification]:
        scores: list[Classification] = []
        for piece in pieces(texts, PIECE_TOKENS, USUAL_WINDOW, self._long_text):
            scores += await self._score_piece(version, piece)
        return scores

    async def _score_piece(self, version: Version, texts: Sequence[str]) -> list[Classification]:
        """Score a piece of the chunk, without the texts that end each runner that gets them."""
        lost = self._lost[version]
        if lost.is_to_be_proved:
            try:
                await self._send(version, HARMLESS)
            except _Lost as error:
                lost.acquit()
                raise RunnersLost from error
            lost.prove()
        if lost.gives_up(texts):
            return [replace(NO_RESULT, revision=self.identities[version])]
        parts = lost.parts(texts)
        if len(parts) > 1:
            return [score for part in parts for score in await self._score_piece(version, part)]
        try:
            return await self._send(version, texts)
        except _Lost:
            return await self._score_piece(version, texts)

    async def _send(self, version: Version, texts: Sequence[str]) -> list[Classification]:
        runner, begun = self._runners[version], time.monotonic()
        while True:
            self._check()
            await self._wait_until_idle(runner)
            try:
                with runner.admit(texts, self._long_text, lane="bulk"):
                    scores = await runner.classify(texts, self._long_text, lane="bulk")
            except UnavailableError as error:
                if error.lost:
                    self._lost[version].add(texts, error.lost)
                    raise _Lost from error
                await asyncio.to_thread(self._waiting, error, time.monotonic() - begun)
                # Not as long as clients are told: it is one caller, and all jobs wait for it.
                await asyncio.sleep(min(error.retry_after_seconds, MAX_RETRY_SECONDS))
                continue
            if any(score.revision != self.identities[version] for score in scores):
                raise ModelChanged(version)
            return scores

    async def _wait_until_idle(self, runner: Runner) -> None:
        for _ in range(round(MAX_WAIT_SECONDS / POLL_SECONDS)):
            if runner.is_idle:
                return
            await asyncio.sleep(POLL_SECONDS)
