"""Writes the lines of the log in a thread: what reads them may stall, and nothing waits for it."""

from __future__ import annotations

import logging
import os
import select
from contextlib import suppress
from queue import Full, Queue
from threading import Thread

MAX_WAITING_LINES = 2_000
# How long the end of a process waits for its last lines to be written.
FLUSH_SECONDS = 1.0
DROPPED = "%d lines of the log were dropped: whatever reads it has stalled"


class LineHandler(logging.Handler):
    """Hands lines to a thread; those past `MAX_WAITING_LINES` are dropped, and a line says so."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is that of a file, a pipe, a terminal or a socket."""
        super().__init__()
        self._descriptor = descriptor
        self._begin()
        # A forked process has no threads.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._waiting: Queue[str] = Queue(MAX_WAITING_LINES)
        self._dropped = 0
        self._thread: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = [self.format(record)]
            if self._dropped:
                lines.insert(0, self.format(_dropped(self._dropped, record.name)))
            if self._thread is None:
                thread = Thread(target=self._write, name="log", daemon=True)
                thread.start()
                self._thread = thread
            self._waiting.put_nowait("\n".join(lines))
        except Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001  as every handler of logging: a line is no reason to fail
            self.handleError(record)
        else:
            self._dropped = 0

    def flush(self) -> None:
        """Wait until all lines are written, for at most `FLUSH_SECONDS`."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            line = self._waiting.get()
            # Not by sys.stdout, whose lock the end of the process would wait for.
            with suppress(OSError):  # nobody reads it any more
                self._write_all(f"{line}\n".encode(errors="backslashreplace"))
            self._waiting.task_done()

    def _write_all(self, data: bytes) -> None:
        unwritten = memoryview(data)
        while unwritten:
            try:
                unwritten = unwritten[os.write(self._descriptor, unwritten) :]
            except BlockingIOError:  # as another program has set it
                select.select([], [self._descriptor], [])


def _dropped(count: int, logger_name: str) -> logging.LogRecord:
    level = {"levelname": "WARNING", "levelno": logging.WARNING}
    return logging.makeLogRecord({**level, "name": logger_name, "msg": DROPPED, "args": (count,)})
