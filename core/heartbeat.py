"""The heartbeat of a worker: tells the process manager that it lives, and ends it when it hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from core.silence import Activity, Silence

logger = logging.getLogger("bentoml.sentiment")

PERIOD_SECONDS = 1.0
# A beat is the number of the process.
BEAT = struct.Struct("!I")


class Work(NamedTuple):
    """The number of the piece of work that a thread is at; None if it waits for some."""

    number: int | None
    busy_seconds: float  # in which it was at work, since it began


# The work of each thread, by native id.
Progress = Callable[[], Mapping[int, Work]]


class Heartbeat:
    """A thread that beats once a second, and watches the event loop and the compute threads.

    It kills the process when one of them is silent. When the whole process is, no beat reaches the
    process manager, which kills it then (serving/watchdog).
    """

    def __init__(self) -> None:
        self._groups: list[ThreadGroup] = []
        self._thread: threading.Thread | None = None

    def start(self, descriptor: int) -> None:
        """Beat on the socket `descriptor`; end this process when its other end is closed."""
        if self._thread is not None or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        self._thread = threading.Thread(
            target=self._run, args=(descriptor,), name="heartbeat", daemon=True
        )
        self._beat(descriptor)
        self._thread.start()

    def watch_compute(self, progress: Progress) -> None:
        """Watch threads that compute, also by native threads, if the heartbeat was started."""
        if self._thread is not None:
            self._groups.append(ThreadGroup(progress))

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the event loop of the calling thread, if the heartbeat was started."""
        if self._thread is not None:
            self._groups.append(ThreadGroup(loop_progress(loop)))

    def _run(self, descriptor: int) -> None:
        activity, last = Activity(os.getpid()), time.monotonic()
        while True:
            time.sleep(PERIOD_SECONDS)
            self._beat(descriptor)
            now = time.monotonic()
            active = activity.since_last_call()
            for group in self._groups:
                if (thread := group.silent_thread(now - last, active)) is not None:
                    names = {each.native_id: each.name for each in threading.enumerate()}
                    logger.error(
                        "the thread %s hangs: this process ends and is started again",
                        names.get(thread, thread),
                    )
                    for handler in logging.root.handlers:
                        handler.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
            last = now

    def _beat(self, descriptor: int) -> None:
        try:
            os.write(descriptor, BEAT.pack(os.getpid()))
        except BlockingIOError:
            pass  # the process manager is stopped
        except (BrokenPipeError, ConnectionResetError):
            os.kill(os.getpid(), signal.SIGKILL)  # it has ended


class ThreadGroup:
    """Threads that work, and native threads that work for them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._works: dict[int, Work] = {}
        self._silences: dict[int, Silence] = {}

    def silent_thread(self, elapsed: float, activity: Mapping[int, float]) -> int | None:
        """A thread that hangs, `elapsed` seconds after the last call, if there is one."""
        before, self._works = self._works, dict(self._progress())
        silences: dict[int, Silence] = {}
        busy = {
            thread: work.busy_seconds - before[thread].busy_seconds
            for thread, work in self._works.items()
            if thread in before
        }
        # An engine computes in threads of its own, and does not tell for which of ours.
        total = sum(activity.get(thread, 0.0) for thread in activity.keys() - self._strangers())
        for thread, work in self._works.items():
            if work.number is None:
                continue
            silence = Silence()
            if thread in before and before[thread].number == work.number:
                silence = self._silences.get(thread, silence)
                others = sum(seconds for other, seconds in busy.items() if other != thread)
                silence.add(elapsed, total - others)
            silences[thread] = silence
        self._silences = silences
        return next((thread for thread, silence in silences.items() if silence.is_over), None)

    def _strangers(self) -> set[int | None]:
        """Threads of Python that are not of this group."""
        return {thread.native_id for thread in threading.enumerate()} - self._works.keys()


def loop_progress(loop: asyncio.AbstractEventLoop) -> Progress:
    """The progress of the event loop of the calling thread: it answers one call after the other."""
    thread = threading.get_native_id()
    asked = answered = 0

    def answer(number: int) -> None:
        nonlocal answered
        answered = number

    def progress() -> Mapping[int, Work]:
        nonlocal asked
        if answered == asked:
            try:
                loop.call_soon_threadsafe(answer, asked + 1)
            except RuntimeError:
                return {}  # the loop is closed: the process ends
            asked += 1
        return {thread: Work(asked, 0.0)}

    return progress


# A process has one, as it has one registry of metrics.
heartbeat = Heartbeat()
