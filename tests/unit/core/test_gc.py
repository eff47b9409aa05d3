"""Garbage is collected again after imports, if it was before."""

from __future__ import annotations

import gc

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
