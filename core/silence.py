"""How long threads have been silent: neither at work nor waiting for a core.

A thread that hangs is silent. On an overloaded machine a thread makes no progress either, but it
waits for a core, and Linux counts that time. So no load makes a healthy thread silent.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

SILENT_SECONDS = 7.0
# Also of a thread that works, or waits for a core, and makes no progress.
NO_PROGRESS_SECONDS = 60.0
# A machine or a container that was suspended must not look like a thread that hangs.
MAX_STEP_SECONDS = 2.0
# Of a process that has not beaten yet: it imports, and may wait long for a disk.
STARTING_SECONDS = 60.0


class Silence:
    """Adds up the silence of a thread or a process, in steps of about a second."""

    def __init__(
        self, limit: float = SILENT_SECONDS, limit_at_work: float = NO_PROGRESS_SECONDS
    ) -> None:
        """The limits, in seconds, of silence, and of work or waiting for a core in vain."""
        self._limits = limit, limit_at_work
        self.seconds = 0.0
        self._without_progress = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it has lasted so long that the thread or the process hangs."""
        limit, limit_at_work = self._limits
        return self.seconds > limit or self._without_progress > limit_at_work

    def add(self, elapsed: float, active: float) -> None:
        """Add `elapsed` seconds, of which it was active for `active`.

        A wait for a core counts when it ends, so `active` may be more than `elapsed`.
        """
        elapsed = min(max(elapsed, 0.0), MAX_STEP_SECONDS)
        self.seconds = max(self.seconds + elapsed - active, 0.0)
        self._without_progress += elapsed


class Pulse:
    """The silence of another process, which beats once a second from some time on."""

    def __init__(self, process: int, *, starting_seconds: float = STARTING_SECONDS) -> None:
        """`starting_seconds` are of the silence before its first beat."""
        self._silence = Silence(starting_seconds, math.inf)
        self._has_beaten = False
        self._activity = Activity(process)

    @property
    def is_over(self) -> bool:
        """Whether the process hangs."""
        return self._silence.is_over

    def add(self, elapsed: float, *, has_beaten: bool) -> None:
        """Add `elapsed` seconds, in which it has beaten, or has not."""
        # Of a kernel that does not count, a process that starts may be at work all the time.
        unknown = 0.0 if self._has_beaten else elapsed
        active = max(self._activity.since_last_call().values(), default=unknown)
        if has_beaten:
            self._has_beaten = True
            self._silence = Silence()
        else:
            self._silence.add(elapsed, active)


class Activity:
    """The activity of a process' threads, from one call to the next."""

    def __init__(self, process: int) -> None:
        self._tasks = Path(f"/proc/{process}/task")
        self._before: dict[int, float] = {}

    def since_last_call(self) -> dict[int, float]:
        """The seconds in which each thread worked or waited for a core, by its native id.

        A thread that has begun since is not in it. A kernel without these counts gives none.
        """
        before, self._before = self._before, self._totals()
        return {id_: total - before[id_] for id_, total in self._before.items() if id_ in before}

    def _totals(self) -> dict[int, float]:
        totals = {}
        with suppress(OSError, ValueError):
            for task in self._tasks.iterdir():
                counts = (task / "schedstat").read_text(encoding="ascii")
                worked_ns, waited_ns, _ = map(int, counts.split())
                totals[int(task.name)] = (worked_ns + waited_ns) / 1e9
        return totals
