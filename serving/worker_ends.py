"""Names the workers that ended by themselves: crashed, or killed, as by a kernel without memory."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

logger = logging.getLogger("bentoml.sentiment")


class WorkerEnds:
    """Knows which ends have been told."""

    def __init__(self) -> None:
        self._told: set[int] = set()
        # The workers of the call before, by the number of their process.
        self._known: dict[int, str] = {}

    def tell(self, workers: Mapping[str, Iterable[int]]) -> None:
        """Log the ends of `workers`: child processes by the name of what starts them again.

        The children remain for whoever waits for them. A worker that is no longer among them and
        was not waited for ended while the process manager looked, which then waits for it never.
        """
        now = {process: name for name, processes in workers.items() for process in processes}
        dropped = {process: name for process, name in self._known.items() if name in workers}
        ended = set()
        for process, name in (dropped | now).items():
            with suppress(ChildProcessError):  # somebody waited for it meanwhile
                if (end := _end_of(process)) is not None:
                    ended.add(process)
                    if process not in self._told:
                        logger.error("%s (process %d) %s: it is started again", name, process, end)
                    if process not in now:
                        os.waitpid(process, os.WNOHANG)
        self._told, self._known = ended, now


def _end_of(process: int) -> str | None:
    """How a child ended; None if it has not, or where that cannot be asked."""
    if sys.platform != "linux":
        return None
    found = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return f"ended with exit status {found.si_status}"
    if found.si_status == signal.SIGKILL:
        return "was killed (SIGKILL, as by a system that is out of memory)"
    return f"was ended by {signal.Signals(found.si_status).name}"
