from __future__ import annotations

import psutil

from core.gc import collect_and_return

MIB = 1024 * 1024


def test_memory_below_an_object_that_stays_goes_back_to_the_machine() -> None:
    process = psutil.Process()
    # Larger than what Python, smaller than what the allocator takes from the machine one by one.
    blocks = [bytes(2_000) for _ in range(30_000)]
    kept = blocks.pop()
    full = process.memory_info().rss
    blocks.clear()

    collect_and_return()

    assert full - process.memory_info().rss > 40 * MIB
    assert len(kept) == 2_000
