"""The log names a worker that ended by itself, and how."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from serving.worker_ends import WorkerEnds
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells without waiting")


def python(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program])


def told(
    ends: WorkerEnds, workers: Sequence[subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> list[str]:
    caplog.clear()
    ends.tell({"sentiment": [worker.pid for worker in workers]})
    return [record.getMessage() for record in caplog.records]


def test_end_of_a_worker_that_the_manager_dropped_unseen_is_told_and_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bentoml.sentiment")
    ends, killed = WorkerEnds(), python("import signal; signal.pause()")
    assert told(ends, [killed], caplog) == []
    os.kill(killed.pid, signal.SIGKILL)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    [line] = told(ends, [], caplog)
    assert line.startswith(f"sentiment (process {killed.pid}) was killed (SIGKILL")
    with pytest.raises(ChildProcessError):
        os.waitpid(killed.pid, os.WNOHANG)
    assert told(ends, [], caplog) == []
    killed.wait()


def test_end_of_a_worker_that_was_stopped_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bentoml.sentiment")
    ends, stopped = WorkerEnds(), python("import signal; signal.pause()")
    assert told(ends, [stopped], caplog) == []
    stopped.terminate()
    os.waitid(os.P_PID, stopped.pid, os.WEXITED | os.WNOWAIT)
    ends.tell({})
    assert caplog.messages == []
    assert stopped.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("import sys; sys.exit(3)", "ended with exit status 3"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        (
            f"import os; os.kill(os.getpid(), {signal.SIGKILL})",
            "was killed (SIGKILL, as by a system that is out of memory)",
        ),
    ],
)
def test_end_is_told_once_and_the_child_can_still_be_waited_for(
    program: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bentoml.sentiment")
    ends, goes_on, ending = WorkerEnds(), python("import signal; signal.pause()"), python(program)
    try:
        lines: list[str] = []

        def is_told() -> bool:
            lines.extend(told(ends, [goes_on, ending], caplog))
            return bool(lines)

        wait_until(is_told)
        assert lines == [f"sentiment (process {ending.pid}) {end}: it is started again"]
        assert told(ends, [goes_on, ending], caplog) == []
        assert ending.wait() != 0
        assert told(ends, [goes_on, ending], caplog) == []
    finally:
        for process in (goes_on, ending):
            process.kill()
            process.wait()
