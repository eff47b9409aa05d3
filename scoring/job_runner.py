"""Runs the jobs of this host, one at a time, in one of its API processes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from core.background import Background, run_in_background
from core.errors import Overloaded, RunnerUnavailable, UnavailableError
from core.jobs import JobState, JobStatus
from core.private_files import FOLDER_MODE, open_private
from core.types import Version
from scoring.job import check_scored, score_file
from scoring.job_faults import JobRemoved, ShareUsed, StepsAside, why_it_failed, why_it_waits
from scoring.job_store import JobStore
from scoring.journal import CannotResume, Progress
from scoring.lost_texts import LostTexts
from scoring.spare_scorer import Runner, SpareScorer
from scoring.stored_job import StoredJob

logger = logging.getLogger("bentoml.sentiment.jobs")

POLL_SECONDS = 1.0
SWEEP_SECONDS = 60.0
# A job waits so many times as long for a runner that is overloaded as for one that is down.
BUSY_TIMES = 6
# The status on disk is at most so old.
STATUS_SECONDS = 0.5
# Within a chunk, between two looks at whether the job was removed.
CHECK_SECONDS = 0.5
# A chunk may be read for so long after the turn of its job: usual ones take a hundredth of it.
READING_SECONDS = 10.0
# A job in which so many processes died, one after the other and without progress, has failed.
MAX_ATTEMPTS = 3
# After so long, and the rest of its chunk, a job lets those of other callers go on.
TURN_SECONDS = 60.0
# A job for which the disk has no room tries again after this time.
RETRY_SECONDS = 30.0
# So long a runner may take no text of a job before those of others go on.
WAIT_SECONDS = 10.0


class JobRunner(Background):
    """Scores the oldest job of the caller who has waited the longest, for one turn.

    A job that has to wait, such as for room on the disk, is tried again later, after others.
    The process that holds the lock of the folder runs jobs; when it dies, another one goes on where
    the journal of the job stands.
    """

    def __init__(
        self,
        store: JobStore,
        runners: Mapping[Version, Runner],
        *,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        turn_seconds: float = TURN_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._runners = runners
        self._retry_seconds = retry_seconds
        self._turn_seconds = turn_seconds
        self._wait_seconds = wait_seconds
        self._sweep_seconds = sweep_seconds
        self._sweeping: asyncio.Task[None] | None = None
        # When each caller with jobs had the last turn, on the monotonic clock.
        self._turns: dict[str, float] = {}
        # For how long the jobs of callers ran, where that is more than of the one who ran last. As
        # in start-time fair queueing (Goyal et al., 1996) who comes begins there; but nobody has to
        # wait for longer than a turn, however long it ran alone.
        self._ran_seconds: dict[str, float] = {}
        self._least_seconds = 0.0
        self._retries: dict[UUID, _Retry] = {}
        # With which texts of each job runners were lost.
        self._lost: dict[UUID, Mapping[Version, LostTexts]] = {}

    def start(self) -> None:
        """Open the lock, and start the task. Raises OSError: the folder cannot be written to."""
        self._store.folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        lock = self._store.folder / ".lock"
        self._lock = open_private(str(lock), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        super().start()

    async def stop(self) -> None:
        await super().stop()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        os.close(self._lock)

    async def _run(self) -> None:
        has_lock = False
        while True:
            has_lock = has_lock or _try_lock(self._lock)
            if has_lock and self._sweeping is None:
                # Beside the jobs: one may run for hours.
                self._sweeping = run_in_background("JobSweep", self._sweep)
            if not (has_lock and await self._run_next()):
                await asyncio.sleep(self._poll_seconds)

    async def _sweep(self) -> None:
        while True:
            await asyncio.to_thread(self._store.sweep)
            await asyncio.sleep(self._sweep_seconds)

    async def _run_next(self) -> bool:
        """Run a job until it ends, waits or steps aside; returns whether there was one to run."""
        jobs = await asyncio.to_thread(self._store.jobs)
        ids = {job.request.id for job in jobs}
        self._retries = {id_: retry for id_, retry in self._retries.items() if id_ in ids}
        self._lost = {id_: lost for id_, lost in self._lost.items() if id_ in ids}
        owners = {job.request.owner for job in jobs}
        self._turns = {owner: at for owner, at in self._turns.items() if owner in owners}
        least = self._least_seconds
        self._ran_seconds = {
            owner: min(ran, least + self._turn_seconds)
            for owner, ran in self._ran_seconds.items()
            if ran > least
        }
        jobs.sort(key=lambda job: self._place(job.request.owner))
        job = await asyncio.to_thread(lambda: next(filter(self._is_ready, jobs), None))
        if job is None:
            return False
        id_, owner = job.request.id, job.request.owner
        retry = self._retries.get(id_, _NO_RETRY)
        self._least_seconds, _ = self._place(owner)
        self._turns[owner] = time.monotonic()
        run = _Run(
            self._store,
            job,
            self._runners,
            lost=self._lost.setdefault(id_, {version: LostTexts() for version in self._runners}),
            steps_aside=partial(self._steps_aside, owner),
            waits_in_turn=partial(self._waits_in_turn, id_),
        )
        outcome = await (
            run.run(restart=retry.restart) if retry.end is None else run.end_as_before(retry.end)
        )
        self._ran_seconds[owner] = self._least_seconds + time.monotonic() - self._turns[owner]
        if outcome in (_Outcome.ended, _Outcome.steps_aside):
            self._retries.pop(id_, None)
        else:
            at = time.monotonic() + self._retry_seconds
            self._retries[id_] = _Retry(at, outcome is _Outcome.restarts, run.unwritten_end)
        return True

    def _place(self, owner: str) -> tuple[float, float]:
        """The place of a caller's jobs in the queue: whose jobs ran the least come first."""
        return self._ran_seconds.get(owner, self._least_seconds), self._turns.get(owner, -math.inf)

    def _is_ready(self, job: StoredJob) -> bool:
        retry = self._retries.get(job.request.id, _NO_RETRY)
        return time.monotonic() >= retry.at and not job.status().is_finished

    def _steps_aside(self, owner: str) -> bool:
        """Whether the turn of this caller is over; called in the thread of the job."""
        if time.monotonic() - self._turns[owner] < self._turn_seconds:
            return False
        others = [job for job in self._store.jobs() if job.request.owner != owner]
        return any(map(self._is_ready, others))

    def _waits_in_turn(self, id_: UUID, seconds: float) -> bool:
        """Whether a job that has waited for so long lets others run; called in a thread."""
        if seconds < self._wait_seconds:
            return False
        others = (job for job in self._store.jobs() if job.request.id != id_)
        return any(map(self._is_ready, others))


class _Outcome(Enum):
    """What became of a job that ran."""

    ended = "it has ended, or was removed"
    steps_aside = "it goes on after others"
    waits = "it goes on later"
    restarts = "it begins again later"


class _Retry(NamedTuple):
    """When a job that waits is tried again, on the monotonic clock, and how."""

    at: float
    restart: bool = False
    # How it has ended, where the disk had no room to say so.
    end: JobStatus | None = None


_NO_RETRY = _Retry(-math.inf)


class _Run:
    """One job while it runs."""

    def __init__(
        self,
        store: JobStore,
        job: StoredJob,
        runners: Mapping[Version, Runner],
        *,
        lost: Mapping[Version, LostTexts],
        steps_aside: Callable[[], bool],
        waits_in_turn: Callable[[float], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._runners = runners
        self._lost = lost
        self._steps_aside = steps_aside
        self._waits_in_turn = waits_in_turn
        self._status = job.status()
        self._written_at = 0.0
        self._checked_at = self._reading_since = time.monotonic()
        self._waiting = threading.Lock()
        self._is_stopping = False
        self.unwritten_end: JobStatus | None = None

    async def end_as_before(self, end: JobStatus) -> _Outcome:
        """Say how the job has ended, which the disk had no room for."""
        self._status = end
        return await asyncio.to_thread(self._end)

    async def run(self, *, restart: bool) -> _Outcome:
        """Run the job until it has ended, is removed, steps aside, or has to wait."""
        started_at = self._status.started_at or datetime.now(UTC)
        if self._status.attempts >= MAX_ATTEMPTS:
            await asyncio.to_thread(self._job.drop_unfinished)
            died = f"The service died of it {MAX_ATTEMPTS} times, and did not get on"
            return await asyncio.to_thread(self._end_as, "failed", died)
        attempts = self._status.attempts + 1
        self._status = replace(self._status, started_at=started_at, attempts=attempts)
        await asyncio.to_thread(self._write)
        try:
            self._status = await self._score(restart=restart)
            await asyncio.to_thread(self._check_scored)
        except asyncio.CancelledError:  # the process stops as it should
            self._status = replace(self._status, attempts=0)
            await asyncio.to_thread(self._write)
            raise
        except Exception as error:  # noqa: BLE001  the edge of a job, which others follow
            if self._job.is_removed:
                logger.info("job %s was removed while it ran", self._job.request.id)
                return _Outcome.ended
            if isinstance(error, StepsAside):
                await asyncio.to_thread(self._wait, "The jobs of other callers have their turn")
                return _Outcome.steps_aside
            reason = why_it_waits(error)
            if reason is not None:
                await asyncio.to_thread(self._wait, reason)
                return _Outcome.restarts if isinstance(error, CannotResume) else _Outcome.waits
            drops_all = isinstance(error, ShareUsed)
            drop = self._job.drop_output if drops_all else self._job.drop_unfinished
            await asyncio.to_thread(drop)
            why = why_it_failed(error, self._job.request.id)
            return await asyncio.to_thread(self._end_as, "failed", why)
        self._status = replace(self._status, fraction=1.0)
        return await asyncio.to_thread(self._end_as, "done", None)

    def _check_scored(self) -> None:
        check_scored(self._status.scored, self._status.rejected, self._job.rejected)

    async def _score(self, *, restart: bool) -> JobStatus:
        request = self._job.request
        if self._job.has_result:  # a process died before it could say so
            return self._status
        revisions = {}
        for version in request.versions:
            description = await self._runners[version].wait_until_described()
            if not description.converged:
                raise RunnerUnavailable(f"The hosts of model {version} hold different models")
            revisions[version] = description.revision
        source = self._job.upload
        if request.path is not None:
            source = await asyncio.to_thread(self._store.resolve, request.path)
        scorer = SpareScorer(
            self._runners,
            revisions,
            check=self._check_removed,
            waiting=self._wait_for_runner,
            lost=self._lost,
            long_text=request.long_text,
        )
        job = self._job.to_score(source, self._check_watched, restart=restart)
        scoring = asyncio.get_running_loop().run_in_executor(
            None, partial(score_file, scorer, job, self._report, self._store.room.check_disk)
        )
        try:
            done = await asyncio.shield(scoring)
            return replace(self._status, scored=done.scored, rejected=done.rejected)
        except asyncio.CancelledError:
            # The process stops: the journal is whole after each chunk.
            self._is_stopping = True
            scorer.stop()
            await asyncio.gather(scoring, return_exceptions=True)
            raise

    def _check_removed(self) -> None:
        if self._job.is_removed:
            raise JobRemoved

    def _check_watched(self) -> None:
        """Called in the thread of the job while its file is read, which may take long in a chunk.

        The next turn begins with the same chunk.
        """
        if self._is_stopping:
            raise StepsAside
        now = time.monotonic()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._check_removed()
            if now - self._reading_since >= READING_SECONDS and self._steps_aside():
                raise StepsAside

    def _report(self, progress: Progress, fraction: float) -> None:
        """Called in the thread of the job after each chunk."""
        self._check_removed()
        self._store.room.check_growth(self._job.request.owner)
        # Of a job that begins again there are fewer than it had.
        before = self._status.scored + self._status.rejected
        gets_on = progress.scored + progress.rejected > before
        self._status = replace(
            self._status,
            state="running",
            attempts=0 if gets_on else self._status.attempts,
            reason=None,
            fraction=fraction,
            scored=progress.scored,
            rejected=progress.rejected,
        )
        if fraction == 1.0 or time.monotonic() - self._written_at >= STATUS_SECONDS:
            self._written_at = time.monotonic()
            self._job.write_status(self._status)
        if gets_on and self._steps_aside():
            raise StepsAside
        self._reading_since = time.monotonic()

    def _wait_for_runner(self, error: UnavailableError, seconds: float) -> None:
        """Called in a thread while a runner does not take a piece of a chunk.

        The job waits in its turn, and begins the chunk again, if others need not wait.
        """
        self._wait(error.detail)
        # One that is only busy takes a piece now and then: jobs that gave way as soon would all
        # begin their chunks again and again.
        if self._waits_in_turn(seconds / BUSY_TIMES if isinstance(error, Overloaded) else seconds):
            raise error

    def _wait(self, reason: str) -> None:
        with self._waiting:  # for both versions, in two threads
            if self._status.reason != reason or self._status.attempts:
                self._status = replace(self._status, state="waiting", attempts=0, reason=reason)
                self._write()

    def _end_as(self, state: JobState, reason: str | None) -> _Outcome:
        self._status = replace(
            self._status, state=state, reason=reason, finished_at=datetime.now(UTC)
        )
        return self._end()

    def _end(self) -> _Outcome:
        # In this order: whoever reads that the job has ended finds what it leaves, and a full disk
        # has room for the status.
        self._job.upload.unlink(missing_ok=True)
        if not self._write():
            self.unwritten_end = self._status
            return _Outcome.waits
        state, reason = self._status.state, self._status.reason
        logger.info("job %s: %s, %s", self._job.request.id, state, reason or "as it should")
        return _Outcome.ended

    def _write(self) -> bool:
        """Write the status; a full disk leaves the old one, and the job goes on."""
        try:
            self._job.write_status(self._status)
        except OSError as error:
            if self._job.is_removed:
                return True
            logger.warning("the status of a job cannot be written: %s", error.strerror)
            return False
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
