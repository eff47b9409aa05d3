"""Finds the texts of a job that end each runner that gets them.

A runner may end for any other reason meanwhile, and may be so sick that it ends of any text. So a
loss counts against the texts once the runner has computed a harmless one after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runners.calls import MAX_LOST

# Of any model; a runner that is lost with it is sick.
HARMLESS = ["It is fine."]
# A piece with which a runner was lost is cut into so many, which are sent again one by one.
PARTS = 8
# A job with more texts that end runners has failed: each costs everybody a few of them.
MAX_GIVEN_UP = 5


class RunnersLost(Exception):
    """A runner ended while it had a harmless text."""


class TooManyDeadlyTexts(Exception):
    """Too many texts of the job have ended runners."""


class LostTexts:
    """The texts of a job with which runners of one version were lost. Outlasts a job's turns."""

    def __init__(self) -> None:
        self._lost: Counter[tuple[str, ...]] = Counter()
        # Until the runner has computed something harmless.
        self._unproven: Counter[tuple[str, ...]] = Counter()
        self._given_up: set[str] = set()

    @property
    def is_to_be_proved(self) -> bool:
        """Whether a harmless text has to tell if the runner or the texts were at fault."""
        return bool(self._unproven)

    def add(self, texts: Sequence[str], runners: int) -> None:
        """Note that so many runners were lost with `texts`."""
        self._unproven[tuple(texts)] += runners

    def prove(self) -> None:
        """The runner computes harmless texts."""
        self._lost.update(self._unproven)
        self._unproven.clear()

    def acquit(self) -> None:
        """The runner ends of harmless texts too."""
        self._unproven.clear()

    def parts(self, texts: Sequence[str]) -> list[Sequence[str]]:
        """What to send of `texts`: all at once, unless a runner was lost with them."""
        if len(texts) == 1 or not self._lost[tuple(texts)]:
            return [texts]
        size = -(-len(texts) // PARTS)
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def gives_up(self, texts: Sequence[str]) -> bool:
        """Whether `texts` are a single one, with which too many runners were lost.

        Raises:
            TooManyDeadlyTexts: so were too many others.
        """
        if len(texts) > 1 or self._lost[tuple(texts)] < MAX_LOST:
            return False
        self._given_up.add(texts[0])
        if len(self._given_up) > MAX_GIVEN_UP:
            raise TooManyDeadlyTexts
        return True
