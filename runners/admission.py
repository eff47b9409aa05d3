"""Admission to a runner: what would wait too long is refused at once, while it costs nothing yet.

By Little's law the wait is what is ahead divided by the pace at which it is worked off. Each API
process looks at its own requests and at the pace that it gets, so they need not know of each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from runners.lanes import LANES, Lane

Reason = Literal["queue_time", "queue_size", "deadline"]

# Below this the runner may have nothing to do between two answers, and the pace would say nothing.
SATURATED_TOKENS = 2_048
# How long the past counts for the pace, and for how much past an expectation stands.
MEMORY_SECONDS = 3.0
EXPECTED_SECONDS = 0.5
# The answers of one call come at once; when the first of them shows that there is no longer enough
# to do, the others are still those of the time before.
CLUMP_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What may wait in each lane."""

    texts: int
    tokens: int
    seconds: dict[Lane, float]


class AdmissionRejected(Exception):
    """Too much waits already; says for how long, as far as that is known."""

    def __init__(self, reason: Reason, wait_seconds: float) -> None:
        super().__init__(f"{reason}: {wait_seconds:.2f} s")
        self.reason: Reason = reason
        self.wait_seconds = wait_seconds


class ThroughputEstimator:
    """Tokens a second that come back while there is enough to do; the last seconds count most."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._last: float | None = None
        self._ended_at = -math.inf

    @property
    def tokens_per_second(self) -> float | None:
        """None if nothing was seen and nothing is expected."""
        return self._tokens / self._seconds if self._seconds else None

    def seed(self, tokens_per_second: float) -> None:
        """Goes for as long as little was seen."""
        if not self._seconds:
            self._tokens = tokens_per_second * EXPECTED_SECONDS
            self._seconds = EXPECTED_SECONDS

    def begin(self) -> None:
        """From now on there is enough to do."""
        if self._last is None:
            self._last = self._clock()

    def end(self) -> None:
        if self._last is not None:
            self._last = None
            self._ended_at = self._clock()

    def add(self, tokens: int) -> None:
        """So many have come back."""
        now = self._clock()
        if self._last is None:
            if now - self._ended_at < CLUMP_SECONDS:
                self._tokens += tokens
            return
        elapsed = now - self._last
        kept = math.exp(-elapsed / MEMORY_SECONDS)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + elapsed
        self._last = now


@dataclass(slots=True)
class _Backlog:
    texts: int = 0
    tokens: int = 0


class Admission:
    """Knows what one process has asked of a runner and not got back."""

    def __init__(self, bounds: QueueBounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._backlogs = {lane: _Backlog() for lane in LANES}
        self.pace = ThroughputEstimator(clock)

    def wait_seconds(self, lane: Lane) -> float:
        """How long what joins `lane` now would wait; 0 as long as the pace is not known."""
        pace = self.pace.tokens_per_second
        if not pace:
            return 0.0
        backlog = self._backlogs[lane]
        alone = all(not self._backlogs[other].texts for other in LANES if other != lane)
        return backlog.tokens / pace * (1 if alone else len(LANES))

    def is_full(self, lane: Lane) -> bool:
        """Whether the shortest of texts would be refused, however long it may take."""
        texts = self._backlogs[lane].texts
        return texts >= self._bounds.texts or (
            texts > 0 and self.wait_seconds(lane) > self._bounds.seconds[lane]
        )

    @contextmanager
    def admitted(
        self, lane: Lane, *, texts: int, tokens: int, deadline_seconds: float
    ) -> Iterator[None]:
        """Around the work; a lane where nothing waits takes whatever comes.

        Raises:
            AdmissionRejected: it would wait past its deadline, wait longer than the lane
                allows, or be too much.
        """
        self.check(lane, texts=texts, tokens=tokens, deadline_seconds=deadline_seconds)
        backlog = self._backlogs[lane]
        backlog.texts += texts
        backlog.tokens += tokens
        if self._outstanding() >= SATURATED_TOKENS:
            self.pace.begin()
        try:
            yield
            self.pace.add(tokens)
        finally:
            backlog.texts -= texts
            backlog.tokens -= tokens
            if self._outstanding() < SATURATED_TOKENS:
                self.pace.end()

    def check(self, lane: Lane, *, texts: int, tokens: int, deadline_seconds: float) -> None:
        """Raises AdmissionRejected, as `admitted` would."""
        backlog = self._backlogs[lane]
        if not backlog.texts:
            return
        wait_seconds = self.wait_seconds(lane)
        if backlog.texts + texts > self._bounds.texts:
            raise AdmissionRejected("queue_size", wait_seconds)
        if backlog.tokens + tokens > self._bounds.tokens:
            raise AdmissionRejected("queue_size", wait_seconds)
        if wait_seconds > self._bounds.seconds[lane]:
            raise AdmissionRejected("queue_time", wait_seconds)
        if wait_seconds > deadline_seconds:
            raise AdmissionRejected("deadline", wait_seconds)

    def _outstanding(self) -> int:
        return sum(backlog.tokens for backlog in self._backlogs.values())
