"""The memory that large bodies may take together while they come."""

from __future__ import annotations

from collections import Counter

from core.errors import Overloaded

# So much of a body counts for nothing: a connection has a buffer of this size anyway, and a client
# that holds many large bodies keeps nobody from sending small ones.
FREE_BYTES = 65_536


class BodyBudget:
    """Counts the bytes of all bodies that come at the same time.

    One caller gets half of it at most, so that others can still send large bodies.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes: Counter[str] = Counter()  # by caller

    def body_of(self, caller: str) -> HeldBody:
        return HeldBody(self, caller)

    def take(self, caller: str, length: int) -> None:
        """Raises Overloaded: there is no room for so many bytes."""
        if (
            self._held_bytes.total() + length > self._max_bytes
            or self._held_bytes[caller] + length > self._max_bytes / 2
        ):
            raise Overloaded(
                "Too many large bodies come at the same time; try again", of_large=True
            )
        self._held_bytes[caller] += length

    def give_back(self, caller: str, length: int) -> None:
        self._held_bytes[caller] -= length
        self._held_bytes += Counter()  # drops the callers without bytes


class HeldBody:
    """The bytes that one body takes of a budget, until `release`."""

    def __init__(self, budget: BodyBudget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._received_bytes = self._taken_bytes = 0

    def __enter__(self) -> HeldBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def add(self, length: int) -> None:
        """Raises Overloaded: the budget has no room for so many bytes more."""
        self._received_bytes += length
        if more := max(0, self._received_bytes - FREE_BYTES) - self._taken_bytes:
            self._budget.take(self._caller, more)
            self._taken_bytes += more

    def release(self) -> None:
        if self._taken_bytes:
            self._budget.give_back(self._caller, self._taken_bytes)
            self._taken_bytes = 0
