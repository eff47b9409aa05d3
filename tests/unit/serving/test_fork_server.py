from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from analytics.log.shipper_supervisor import COMMAND
from core.paths import ROOT
from serving.fork_server import STANDBY
from serving.forking import FORK_SECONDS, PROGRAM, ForkedWorker, ForkServer, NoForkServer
from serving.framework import WORKER
from tests.waiting import wait_until

# Of sockets that workers serve. Higher than the files of this process: one of them is the channel
# to the fork server, which a socket at its number would replace.
FIRST, SECOND = 240, 241
# A service whose import writes down what its process is, and ends it.
PROBE = """
import json, os, random, signal, sys, tempfile, threading, time
from pathlib import Path

import openvino, sqlalchemy
from core import metrics
from core.settings import get_settings
from serving.framework import WORKER_STDIN, is_worker

metrics.cache_hits.inc()
facts = {
    "is worker": is_worker(),
    "arguments": sys.argv[1:],
    "path": sys.path[0],
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "descriptors": sorted(int(each.name) for each in Path("/proc/self/fd").iterdir()),
    "sockets": [os.fstat(number).st_ino for number in (WORKER_STDIN, int(os.environ["FD"]))],
    "parent": os.getppid(),
    "session": os.getsid(0) == os.getpid(),
    "threads": threading.active_count(),
    "temporary": tempfile.gettempdir(),
    "data": str(get_settings().data_folder),
    "signals": [signal.getsignal(number) is signal.SIG_DFL for number in (15, 1)],
    "random": random.random(),
    "metrics": sorted(each.name for each in metrics.FOLDER.iterdir()),
    "command": Path("/proc/self/cmdline").read_bytes().decode().rstrip(chr(0)),
}
partial = Path("partial-" + os.environ["FD"])
partial.write_text(json.dumps(facts))
partial.rename("facts-" + os.environ["FD"])
if os.environ.get("WAITS"):
    signal.pause()
if os.environ.get("SHIPS"):
    import asyncio
    from core.standby import take_standby

    shipper = take_standby()
    assert take_standby() is None
    Path("shipper").write_text(str(shipper.pid))
    while not Path("end").exists():
        time.sleep(0.01)
    if os.environ["SHIPS"] == "killed":
        shipper.kill()
    shipper.end.close()
    raise SystemExit(asyncio.run(shipper.wait()) % 256)
raise SystemExit(7)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.wait_until_ready()
    yield server
    server.close()


@contextmanager
def at_number(served: socket.socket, number: int) -> Iterator[None]:
    """A copy of a socket at this number, which another file of this process may have."""
    try:
        kept = os.dup(number)
    except OSError:  # none has it
        kept = -1
    os.dup2(served.fileno(), number)
    try:
        yield
    finally:
        if kept < 0:
            os.close(number)
        else:
            os.dup2(kept, number, inheritable=False)
            os.close(kept)


@pytest.fixture
def start(forks: ForkServer, tmp_path: Path) -> Iterator[Callable[..., ForkedWorker]]:
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "temporary").mkdir()
    beats, stdin = socket.socketpair()
    served = socket.create_server(("127.0.0.1", 0))

    def start_worker(number: int, *options: str, **environment: str) -> ForkedWorker:
        with at_number(served, number):
            return forks.start_worker(
                [*command(number), *options],
                stdin=stdin.fileno(),
                folder=str(tmp_path),
                environment={
                    "FD": str(number),
                    "DATA_FOLDER": str(tmp_path / "data"),
                    "TMPDIR": str(tmp_path / "temporary"),
                    "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
                    "INODES": f"{os.fstat(stdin.fileno()).st_ino} {os.fstat(number).st_ino}",
                    **environment,
                },
            )

    with beats, stdin, served:
        yield start_worker


def command(number: int) -> list[str]:
    return [sys.executable, str(WORKER), "probe:Probe", "--fd", str(number), "--args", "{}"]


def facts_of(folder: Path, number: int, worker: ForkedWorker) -> dict[str, Any]:
    file = folder / f"facts-{number}"
    wait_until(lambda: file.exists() or worker.poll() is not None)
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


def test_forked_worker_is_what_a_started_one_is_and_inherits_nothing_else(
    start: Callable[..., ForkedWorker], tmp_path: Path
) -> None:
    # By numbers that are taken, and that are free, in the fork server.
    workers = {number: start(number) for number in (FIRST, SECOND)}
    for number, worker in workers.items():
        facts = facts_of(tmp_path, number, worker)
        environment = facts["environment"]
        assert facts["is worker"]
        assert facts["arguments"] == command(number)[2:]
        assert facts["command"].split() == command(number)
        assert [facts["path"], facts["folder"]] == [str(tmp_path)] * 2
        assert facts["descriptors"][:4] == [0, 1, 2, 3]  # the last one lists the folder
        assert facts["sockets"] == [int(inode) for inode in environment["INODES"].split()]
        assert (facts["parent"], facts["session"], facts["threads"]) == (os.getpid(), True, 1)
        assert facts["temporary"] == str(tmp_path / "temporary")
        assert facts["data"] == str(tmp_path / "data")
        assert facts["signals"] == [True, True]
        assert f"counter_{worker.pid}.db" in facts["metrics"]
        assert "PATH" not in environment
        assert worker.wait() == 7
        assert worker.poll() == 7
    randoms = {facts_of(tmp_path, number, worker)["random"] for number, worker in workers.items()}
    assert len(randoms) == 2


def test_killed_worker_tells_its_signal_and_leaves_the_fork_server(
    start: Callable[..., ForkedWorker], tmp_path: Path
) -> None:
    worker = start(FIRST, WAITS="1")
    facts_of(tmp_path, FIRST, worker)
    assert worker.poll() is None
    worker.kill()
    wait_until(lambda: worker.poll() is not None)
    assert worker.poll() == -signal.SIGKILL
    assert start(SECOND).wait() == 7


def test_fork_server_whose_supervisor_fails_before_it_is_ready_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(theirs.fileno()), " " * 200],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    # It says that it is ready, and nobody reads it.
    select.select([ours], [], [])
    ours.close()
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, b"")


@pytest.mark.parametrize(("ending", "status"), [("asked", 0), ("killed", 256 - signal.SIGKILL)])
def test_log_shipper_of_a_forked_worker_is_forked_too_and_ends_when_it_is(
    start: Callable[..., ForkedWorker], tmp_path: Path, ending: str, status: int
) -> None:
    worker = start(FIRST, SHIPS=ending, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    file = tmp_path / "shipper"
    wait_until(lambda: file.exists() and bool(file.read_text()))
    shipper = psutil.Process(int(file.read_text()))
    assert shipper.ppid() == worker.pid
    wait_until(lambda: shipper.cmdline() == list(COMMAND))
    wait_until(lambda: bool([*(tmp_path / "metrics").glob(f"*_{shipper.pid}.db")]))
    assert shipper.cwd() == str(ROOT)
    assert shipper.net_connections() == []  # of the worker's sockets
    (tmp_path / "end").touch()
    assert worker.wait() == status


def test_log_shipper_that_no_worker_needed_ends_with_its_worker(
    start: Callable[..., ForkedWorker], tmp_path: Path
) -> None:
    worker = start(FIRST, WAITS="1")
    facts_of(tmp_path, FIRST, worker)
    [waiting] = worker.children()
    wait_until(lambda: waiting.cmdline() == list(STANDBY))
    assert waiting.net_connections() == []
    worker.kill()
    wait_until(lambda: not waiting.is_running())


def test_runner_forks_no_log_shipper(start: Callable[..., ForkedWorker], tmp_path: Path) -> None:
    worker = start(FIRST, "--service-name", "sentiment_runner_v1", WAITS="1")
    facts_of(tmp_path, FIRST, worker)
    assert worker.children() == []
    worker.kill()
    worker.wait()


@pytest.mark.last
def test_stopped_fork_server_is_not_waited_for(
    start: Callable[..., ForkedWorker], forks: ForkServer, caplog: pytest.LogCaptureFixture
) -> None:
    """While the supervisor waits, it neither sees dead workers nor heeds signals."""
    forks._process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(NoForkServer):
        start(FIRST)
    assert time.monotonic() - started < FORK_SECONDS / 2
    assert "the fork server is lost (TimeoutError: it is stopped)" in caplog.text
