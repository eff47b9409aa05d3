"""The supervisor's side of the fork server: starts it, and asks it for workers."""

from __future__ import annotations

import atexit
import ctypes
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise

import psutil

from core.errors import describe_error
from core.metrics_map import UNOPENED
from core.paths import ROOT

logger = logging.getLogger("bentoml.sentiment")

PROGRAM = ROOT / "serving" / "fork_server.py"
# Its imports take 2 s of a core; a machine may be busy.
READY_SECONDS = 60.0
FORK_SECONDS = 10.0
# Between the looks at one that has not answered: nobody watches the workers meanwhile.
LOOK_SECONDS = 0.5
MAX_REPLY_BYTES = 1_000
# The memory of its command line is that of its workers, whose own are longer.
_ROOM = " " * 2_000
# Of <linux/prctl.h>.
_PR_SET_CHILD_SUBREAPER = 36


class NoForkServer(Exception):
    """The fork server cannot fork; says why."""


class ForkedWorker(psutil.Process):  # type: ignore[misc]
    """A child that another process made, with what the process manager asks of a `Popen`."""

    stdout = stderr = None
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status if it has ended; 0 if that is not known any more."""
        if self.returncode is None:
            try:
                self.returncode = self.wait(0) or 0
            except psutil.TimeoutExpired:
                return None
        return self.returncode


class ForkServer:
    """A process that has imported what workers need; it ends with this one."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(theirs.fileno()), _ROOM],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches every process of a terminal's group
                env={
                    **os.environ,
                    "PROMETHEUS_MULTIPROC_DIR": UNOPENED,
                    # It would start threads at import, which a fork loses.
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
        self._channel.settimeout(LOOK_SECONDS)
        atexit.register(self.close)

    def wait_until_ready(self) -> None:
        """Wait for its imports; if they fail, it is closed."""
        try:
            self._receive(READY_SECONDS)
        except OSError as error:
            self._give_up(error)

    def start_worker(
        self, arguments: Sequence[str], *, stdin: int, folder: str, environment: Mapping[str, str]
    ) -> ForkedWorker:
        """Fork a worker that serves the socket of its `--fd`.

        Raises:
            NoForkServer: it has ended, now or before, or does not answer.
            OSError: no process can be made now.
        """
        if self._channel.fileno() < 0:
            raise NoForkServer
        [served] = [int(number) for flag, number in pairwise(arguments) if flag == "--fd"]
        # The fields of serving/fork_server.Request
        request = os.getpid(), list(arguments), dict(environment), folder, served
        # Only now: an orphan of a worker is none of our business.
        _inherit_orphans(True)
        try:
            message = json.dumps(request).encode()
            socket.send_fds(self._channel, [message], [stdin, served])
            reply = json.loads(self._receive(FORK_SECONDS))
        except OSError as error:
            self._give_up(error)
            raise NoForkServer from error
        finally:
            _inherit_orphans(False)
        if "error" in reply:
            raise OSError(f"a worker cannot be forked: {reply['error']}")
        return ForkedWorker(reply["process"])

    def close(self) -> None:
        """End it; the workers go on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
        atexit.unregister(self.close)

    def _receive(self, seconds: float) -> bytes:
        ends = time.monotonic() + seconds
        while True:
            try:
                message = self._channel.recv(MAX_REPLY_BYTES)
            except TimeoutError:
                if self._is_stopped():
                    raise TimeoutError("it is stopped") from None
                if time.monotonic() > ends:
                    raise
            else:
                if message:
                    return message
                raise ConnectionResetError("it has ended")

    def _is_stopped(self) -> bool:
        """Whether a signal has stopped it, so that it would not answer however long one waits."""
        with suppress(psutil.Error):
            return bool(psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED)
        return False

    def _give_up(self, error: OSError) -> None:
        logger.warning(
            "the fork server is lost (%s): workers start without it, which takes a second more",
            describe_error(error),
        )
        self.close()


@cache
def fork_server() -> ForkServer | None:
    """The only one of this process, which the first call starts; None if the system has none."""
    return ForkServer() if sys.platform == "linux" else None


def _inherit_orphans(inherit: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(inherit), 0, 0, 0)
