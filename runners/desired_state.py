"""The desired model of a runner, and whether this process should request it."""

from __future__ import annotations

import math
import time

from core.types import DesiredModel, RunnerDescription


class DesiredState:
    """Decides whether the runner needs a load request from this process.

    Several API processes may know rollout policies of different age. A runner that observed a later
    generation got it from a process with a newer policy, and two processes must not make it change
    back and forth. An earlier generation is requested only if the database returned it after this
    process saw the later one: then an operator set the database back to an earlier state.
    """

    def __init__(self) -> None:
        self._desired: DesiredModel | None = None
        self._as_of = -math.inf
        self._latest_generation = 0
        self._latest_since = -math.inf

    def set(self, desired: DesiredModel, as_of: float) -> bool:
        """Set the model; returns whether it is another one than before.

        `as_of` is the `time.monotonic()` at which the database was read, -inf if it was not.
        """
        self._as_of = as_of
        is_changed = desired != self._desired
        self._desired = desired
        return is_changed

    def to_request(self, description: RunnerDescription) -> DesiredModel | None:
        """The model to request from a runner with this description, if any."""
        if self._desired is None:
            return None
        if description.latest_generation != self._latest_generation:
            self._latest_generation = description.latest_generation
            self._latest_since = time.monotonic()
        if self._latest_generation > self._desired.generation:
            is_needed = self._as_of > self._latest_since
        else:
            is_needed = not description.has_observed(self._desired)
        return self._desired if is_needed else None
