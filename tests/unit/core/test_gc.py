"""When garbage is collected: again after imports if it was before, and seldom in a flood."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from core.gc import paused_gc


def fail_to_import() -> None:
    with paused_gc():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("is_enabled", [True, False])
def test_pause_ends_with_its_block_even_at_an_error(*, is_enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(ImportError):
            fail_to_import()
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_requests_that_wait_are_not_looked_at_again_and_again() -> None:
    program = """
import gc
from core.gc import freeze_gc
freeze_gc()
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
waiting = [[] for _ in range(5_000)]
assert not collections
more = [[] for _ in range(20_000)]
assert collections  # but what nobody refers to is found
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
