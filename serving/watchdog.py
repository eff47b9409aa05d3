"""The process manager's watchdog: kills workers whose heart has stopped, so that they are replaced.

A worker beats once a second (core/heartbeat). One that is stopped, or hangs with the interpreter's
lock, does not, and none of its threads works or waits for a core.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress

from core.heartbeat import BEAT
from core.silence import Pulse

logger = logging.getLogger("bentoml.sentiment")

# The name of the workers' end among the sockets of the process manager.
SOCKET_NAME = "heartbeat"


class HeartbeatSocket:
    """The workers' end of the heartbeat, with what the process manager asks of its sockets.

    It becomes the standard input of every worker. The other end closes with the process manager.
    """

    so_reuseport = False

    def __init__(self, workers: socket.socket, manager: socket.socket) -> None:
        self.fileno = workers.fileno
        self._ends = (workers, manager)

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def bind_and_listen(self) -> None:
        """The socket is connected already."""


class Watchdog:
    """Knows for how long each worker has been silent."""

    def __init__(self) -> None:
        self._beats, workers = socket.socketpair()
        self._beats.setblocking(False)
        workers.setblocking(False)
        self.socket = HeartbeatSocket(workers, self._beats)
        self._watched: dict[int, Pulse] = {}

    def check(self, workers: Iterable[tuple[str, int]], elapsed: float) -> None:
        """Kill the silent ones of `workers`, each a name and the number of a child process.

        `elapsed` are the seconds since the last call. A worker that has not beaten yet has longer.
        """
        beaten = self._receive()
        watched: dict[int, Pulse] = {}
        for name, process in workers:
            watched[process] = worker = self._watched.get(process) or Pulse(process)
            worker.add(elapsed, has_beaten=process in beaten)
            if worker.is_over:
                logger.error("%s (process %d) hangs: it is killed", name, process)
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._watched = watched

    def _receive(self) -> set[int]:
        """The processes that have beaten since the last call."""
        beaten: set[int] = set()
        with suppress(BlockingIOError):
            while beats := self._beats.recv(BEAT.size * 1_000):
                beaten.update(process for (process,) in BEAT.iter_unpack(beats))
        return beaten
