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
    process saw the later one: then an operator set the database back to an earlier state. So is
    what the runner had observed, and does not any more: another process has done that.
    """

    def __init__(self) -> None:
        self._desired: DesiredModel | None = None
        self._as_of = -math.inf
        self._has_observed = False
        self._latest: tuple[int, str | None] = (0, None)
        self._latest_since = -math.inf
        # Of the last model that the database named and the runner then held, or had refused.
        self._right_generation: int | None = None

    def set(self, desired: DesiredModel, as_of: float) -> bool:
        """Set the model; returns whether it is another one than before.

        `as_of` is the `time.monotonic()` at which the database was read, -inf if it was not.
        """
        self._as_of = as_of
        is_changed = desired != self._desired
        self._desired = desired
        self._has_observed &= not is_changed
        return is_changed

    def note(self, description: RunnerDescription) -> None:
        """Note what the runner says of itself now."""
        observed, right = description.observed_generation, self._right_generation
        desired = self._desired
        if desired is not None and self._as_of > -math.inf and observed == desired.generation:
            self._right_generation = observed
        elif right is not None and observed < right:  # it restarted
            self._right_generation = None
        loading = description.loading
        tag = description.tag if loading is None else loading.tag
        latest = description.latest_generation, tag
        if latest != self._latest:
            self._latest = latest
            self._latest_since = time.monotonic()
        self._has_observed |= self._desired is not None and description.has_observed(self._desired)

    def is_settled(self, description: RunnerDescription) -> bool:
        """Whether the runner may answer with the model that it holds.

        One that starts without what it had saved holds the configured model, which may be the
        newest import, and one that was down during a change an earlier model, until it has loaded
        the model of the policy or refused it. A model that was right answers until then.
        """
        if self._desired is None:
            return False
        is_behind = description.observed_generation < self._desired.generation
        return not is_behind or self._right_generation is not None

    def to_request(self, description: RunnerDescription) -> DesiredModel | None:
        """The model to request from a runner with this description, if any."""
        self.note(description)
        if self._desired is None or description.has_observed(self._desired):
            return None
        generation, _ = self._latest
        # A runner that begins anew without what it had saved has the generation 0.
        is_taken = self._has_observed and description.converged and generation > 0
        if generation > self._desired.generation or is_taken:
            return self._desired if self._as_of > self._latest_since else None
        return self._desired
