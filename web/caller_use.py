"""How much each caller took lately of what all of them share, compared with the others."""

from __future__ import annotations

import math

# Callers are counted in so many buckets, by a hash that nobody outside knows.
BUCKETS = 256
# How long it counts.
MEMORY_SECONDS = 5.0
# How long a mean is good for: it takes a look at all buckets, and many requests ask at once.
MEAN_SECONDS = 0.02


def bucket_of(caller: str) -> int:
    return hash(caller) % BUCKETS


class CallerUse:
    """Tells the callers that take much from those that have to wait for it."""

    def __init__(self) -> None:
        self._taken = [0.0] * BUCKETS
        self._all = 0.0
        self._decayed_at = 0.0
        self._mean = 0.0
        self._looked_at = -math.inf

    def add(self, now: float, caller: str, amount: float = 1.0) -> None:
        """Count what a caller took."""
        # What is added later counts for more, instead of all that was there before for less.
        if now - self._decayed_at > MEMORY_SECONDS:
            self._decay(now)
        weighed = amount * math.exp((now - self._decayed_at) / MEMORY_SECONDS)
        self._taken[bucket_of(caller)] += weighed
        self._all += weighed

    def per_second(self, now: float) -> float:
        """What all callers took a second."""
        return self._all * math.exp((self._decayed_at - now) / MEMORY_SECONDS) / MEMORY_SECONDS

    def is_light(self, now: float, caller: str, part: float = 0.5) -> bool:
        """Whether others took so much more that it would help nobody to refuse this caller.

        `part` of the mean, at most half, is less than half of all, so to refuse the others is
        enough; and callers that take alike, or one alone, are none of them light.
        """
        if now - self._looked_at > MEAN_SECONDS:
            self._decay(now)
            self._looked_at = now
            busy = [taken for taken in self._taken if taken >= 1]
            self._mean = sum(busy) / len(busy) if busy else 0.0
        return self._taken[bucket_of(caller)] < part * self._mean

    def _decay(self, now: float) -> None:
        factor = math.exp((self._decayed_at - now) / MEMORY_SECONDS)
        self._taken = [factor * taken for taken in self._taken]
        self._all *= factor
        self._decayed_at = now
