"""Threads and processes that hang are told from those that only wait for a core."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from core.heartbeat import BEAT, ThreadGroup, Work, loop_progress
from core.paths import ROOT
from core.silence import (
    MAX_STEP_SECONDS,
    NO_PROGRESS_SECONDS,
    SILENT_SECONDS,
    STARTING_SECONDS,
    Activity,
    Silence,
)
from serving.watchdog import Watchdog
from tests.waiting import wait_until


def seconds_until_over(elapsed: float, active: float) -> float:
    silence, seconds = Silence(), 0.0
    while not silence.is_over:
        silence.add(elapsed, active)
        seconds += min(elapsed, MAX_STEP_SECONDS)
    return seconds


def test_silence_counts_the_time_that_was_neither_work_nor_waiting_for_a_core() -> None:
    assert seconds_until_over(1.0, 0.0) == SILENT_SECONDS + 1
    assert seconds_until_over(1.0, 0.5) == 2 * SILENT_SECONDS + 1
    assert seconds_until_over(1.0, 1.0) == NO_PROGRESS_SECONDS + 1


def test_wait_for_a_core_that_is_counted_late_makes_no_silence() -> None:
    silence = Silence()
    for active in (0.0, 0.0, 0.0, 4.0) * 5:
        silence.add(1.0, active)
        assert silence.seconds <= 3.0
    assert silence.seconds == 0.0


def test_suspended_machine_makes_no_silence() -> None:
    silence = Silence()
    silence.add(3_600.0, 0.0)
    silence.add(-3_600.0, 0.0)  # a clock that steps back
    assert not silence.is_over


def test_activity_tells_a_thread_that_works_from_one_that_waits() -> None:
    ending, ids = threading.Event(), []

    def work() -> None:
        ids.append(threading.get_native_id())
        while not ending.is_set():
            pass

    activity = Activity(os.getpid())
    worker = threading.Thread(target=work)
    worker.start()
    wait_until(lambda: ids)
    activity.since_last_call()
    began = time.monotonic()
    time.sleep(0.5)  # the time is measured
    seconds = activity.since_last_call()
    elapsed = time.monotonic() - began
    ending.set()
    worker.join()
    assert seconds[ids[0]] > 0.5 * elapsed  # it shares the interpreter's lock
    assert Activity(2**22 + 1).since_last_call() == {}


def group(*works: Mapping[int, Work]) -> ThreadGroup:
    progress: Iterator[Mapping[int, Work]] = iter(works)
    return ThreadGroup(lambda: next(progress))


def found_after(made: ThreadGroup, activity: Mapping[int, float], seconds: int) -> int | None:
    """The thread that hangs, of a group that is looked at once a second."""
    for _ in range(seconds):
        if (thread := made.silent_thread(1.0, activity)) is not None:
            return thread
    return None


SECONDS = int(SILENT_SECONDS) + 2


@pytest.mark.parametrize("engine_threads", [1, 0])
def test_thread_that_hangs_is_found_beside_one_that_works(engine_threads: int) -> None:
    """The engine computes in a thread of its own, 99, or in the one that calls it."""
    works = [{1: Work(4, second), 2: Work(second, second)} for second in range(SECONDS)]
    active = {99: 1.0} if engine_threads else {2: 1.0}
    assert found_after(group(*works), active, SECONDS) == 1


def test_threads_with_slow_batches_on_a_busy_machine_do_not_hang() -> None:
    works = [{1: Work(4, second), 2: Work(7, second)} for second in range(2 * SECONDS)]
    assert found_after(group(*works), {98: 1.0, 99: 1.0}, 2 * SECONDS) is None


def test_idle_threads_do_not_hang() -> None:
    works = [{1: Work(None, 3.0)}] * 2 * SECONDS
    assert found_after(group(*works), {}, 2 * SECONDS) is None


async def test_event_loop_that_is_blocked_hangs_and_one_that_answers_does_not() -> None:
    made = ThreadGroup(loop_progress(asyncio.get_running_loop()))
    for _ in range(2 * SECONDS):
        assert made.silent_thread(1.0, {}) is None
        await asyncio.sleep(0)  # the loop answers
    assert found_after(made, {}, SECONDS) == threading.get_native_id()


def child(*, stopped: bool) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    if stopped:
        process.send_signal(signal.SIGSTOP)
    return process


def test_watchdog_kills_a_stopped_worker_and_no_other() -> None:
    watchdog = Watchdog()
    with (
        child(stopped=True) as hanging,
        child(stopped=False) as beating,
        child(stopped=True) as new,
    ):
        workers = [("hanging", hanging.pid), ("beating", beating.pid), ("new", new.pid)]
        os.write(watchdog.socket.fileno(), BEAT.pack(hanging.pid))
        for _ in range(SECONDS + 1):
            os.write(watchdog.socket.fileno(), BEAT.pack(beating.pid))
            watchdog.check(workers, 1.0)
        assert hanging.wait(10) == -signal.SIGKILL
        # The new one has not beaten yet, as one that imports.
        assert (beating.poll(), new.poll()) == (None, None)
        for _ in range(int(STARTING_SECONDS)):
            os.write(watchdog.socket.fileno(), BEAT.pack(beating.pid))
            watchdog.check(workers, 1.0)
        assert new.wait(10) == -signal.SIGKILL
        assert beating.poll() is None
        beating.kill()
    watchdog.socket.close()


BEATING = """
import os, sys, time
from core.heartbeat import heartbeat
heartbeat.start(0)
print("beats", flush=True)
time.sleep(60)
"""


def test_worker_without_a_process_manager_ends() -> None:
    watchdog = Watchdog()
    with subprocess.Popen(
        [sys.executable, "-c", BEATING],
        cwd=ROOT, stdin=watchdog.socket.fileno(), stdout=subprocess.PIPE,
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"beats\n"
        watchdog.socket.close()
        assert worker.wait(10) == -signal.SIGKILL
