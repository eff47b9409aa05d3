"""Garbage collection and freed memory in a serving process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_gc() -> Iterator[None]:
    """Collect no garbage until the block ends: for imports, which make hardly any.

    Every collection would visit what was imported before, a tenth of the time that the imports of a
    serving process take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# Of objects made and not freed, until the youngest ones are looked at. With Python's 700, the
# thousands of requests and connections of a flood were looked at again and again: that took a
# fifth of an API process's time, and of nearly all of them there was nothing to collect.
YOUNG_OBJECTS = 10_000


def freeze_gc() -> None:
    """Exempt every present object from garbage collection, and collect less often from then on.

    Call it once, after loading. Modules, models and routes never become garbage, but every full
    collection visits them: 160,000 objects in an API process, which block every request for 90 ms.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def collect_and_return() -> None:
    """Collect garbage, and return what the allocator holds free to the machine.

    Loading a model frees the copies of its weights that compiling took: 26 MiB of the starter's,
    which the allocator of glibc keeps. Others have no such call.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
