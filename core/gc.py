"""Garbage collection of a serving process, once it has loaded everything."""

from __future__ import annotations

import gc


def freeze_gc() -> None:
    """Exempt all current objects (modules, models, routes) from garbage collection.

    None of them ever becomes garbage, but every full collection would walk them: 160,000 objects
    in an API process take 90 ms, in which no request moves.
    """
    gc.freeze()
