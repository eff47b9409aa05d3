"""Names the workers that ended by themselves: crashed, or killed, as by a kernel without memory."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

logger = logging.getLogger("bentoml.sentiment")


class WorkerEnds:
    """Knows which ends have been told."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def tell(self, workers: Iterable[tuple[str, int]]) -> None:
        """Log the ends of `workers`, each a name and the number of a child process.

        The children remain for whoever waits for them.
        """
        ended = set()
        for name, process in workers:
            with suppress(ChildProcessError):  # somebody waited for it meanwhile
                if (end := _end_of(process)) is not None:
                    ended.add(process)
                    if process not in self._told:
                        logger.error("%s (process %d) %s: it is started again", name, process, end)
        self._told = ended


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
