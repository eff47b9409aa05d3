"""How many predictions are sent at a time: as many as the other side takes within its time."""

from __future__ import annotations

import math

# A batch that took longer says nothing for a larger one: time-outs are at least three times that.
FAST_SECONDS = 10.0
# So many are taken before a size that was not taken in time is tried again.
PATIENCE = 20


class BatchSize:
    """Halves after a batch that was not taken in time, and doubles after a fast one of that size.

    Over a slow link, or with a short `statement_timeout`, what waits after an outage would
    otherwise be tried as a whole for ever, although the usual traffic passes.
    """

    def __init__(self, most: int, first: int) -> None:
        self._most = most
        self.predictions = first
        self._too_many = math.inf
        self._taken = 0  # batches, since one was not

    def not_in_time(self, predictions: int) -> None:
        """A batch of so many was not taken in time."""
        self.predictions = max(1, min(self.predictions, predictions) // 2)
        self._too_many, self._taken = predictions, 0

    def taken(self, predictions: int, seconds: float) -> None:
        """A batch of so many was taken within `seconds`."""
        self._taken += 1
        larger = min(self._most, 2 * self.predictions)
        is_known = seconds < FAST_SECONDS and predictions >= self.predictions
        if is_known and (larger < self._too_many or self._taken >= PATIENCE):
            self.predictions = larger
