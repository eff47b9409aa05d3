"""The looks of a step: when its evidence is judged.

A step is judged every five seconds at first, later whenever it has lasted 1 % longer. More looks
would see nothing earlier, but each is another chance of a false alarm. The looks depend on the
step's start alone, so every process has the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

FIRST_SECONDS = 5.0
GROWTH = 1.01
# From here on, 1 % is longer than the first looks' distance.
_EVERY_FEW_SECONDS = FIRST_SECONDS / (GROWTH - 1)


def last_look(since: datetime, now: datetime) -> datetime:
    """The last look, at or before `now`, of a step that began at `since`."""
    lasted = (now - since).total_seconds()
    if lasted <= _EVERY_FEW_SECONDS:
        return since + timedelta(seconds=max(0.0, lasted // FIRST_SECONDS * FIRST_SECONDS))
    number = math.floor(math.log(lasted / _EVERY_FEW_SECONDS, GROWTH))
    return since + timedelta(seconds=_EVERY_FEW_SECONDS * GROWTH**number)


def look_seconds(length: float) -> Iterator[float]:
    """The looks of a step that lasts `length` seconds, from its start."""
    look = FIRST_SECONDS
    while look < length:
        yield look
        look = look + FIRST_SECONDS if look < _EVERY_FEW_SECONDS else look * GROWTH
