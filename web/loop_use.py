"""How much of the event loop each caller took lately, told by its requests and their bytes."""

from __future__ import annotations

import math

# Callers are counted in so many buckets, by a hash that nobody outside knows.
BUCKETS = 256
# How long a request counts.
MEMORY_SECONDS = 5.0
# To decode and parse so many bytes takes about as long as the rest of a request, a millisecond.
BYTES_OF_REQUEST = 32_768
# A light caller took less than this part of what the callers took on average.
LIGHT = 0.5
# How long a mean is good for: it takes a look at all buckets, and many requests ask at once.
MEAN_SECONDS = 0.02


def bucket_of(caller: str) -> int:
    return hash(caller) % BUCKETS


class LoopUse:
    """Tells the callers that keep the loop busy from those that have to wait for it."""

    def __init__(self) -> None:
        self._taken = [0.0] * BUCKETS
        self._decayed_at = 0.0
        self._most = 0.0
        self._looked_at = -math.inf

    def add(self, now: float, caller: str, body_bytes: int) -> None:
        """Count a request that has ended, with the bytes of its body."""
        # What is added later counts for more, instead of all that was there before for less.
        if now - self._decayed_at > MEMORY_SECONDS:
            self._decay(now)
        weight = math.exp((now - self._decayed_at) / MEMORY_SECONDS)
        self._taken[bucket_of(caller)] += weight * (1 + body_bytes / BYTES_OF_REQUEST)

    def is_light(self, now: float, caller: str) -> bool:
        """Whether others took so much more that it would help nobody to refuse this caller.

        Half of the mean is less than half of all, so the loop gets free although they are let in;
        and callers that take alike, or one alone, are none of them light.
        """
        if now - self._looked_at > MEAN_SECONDS:
            self._decay(now)
            self._looked_at = now
            busy = [taken for taken in self._taken if taken >= 1]
            self._most = LIGHT * sum(busy) / len(busy) if len(busy) > 0 else 0.0
        return self._taken[bucket_of(caller)] < self._most

    def _decay(self, now: float) -> None:
        factor = math.exp((self._decayed_at - now) / MEMORY_SECONDS)
        self._taken = [factor * taken for taken in self._taken]
        self._decayed_at = now
