"""Leaves out a package that another one imports only if it is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Make `package` look as if it were not installed until the block ends.

    One that was imported before stays.
    """
    if package in sys.modules:
        yield
        return
    # With None, an import raises ModuleNotFoundError (Python's reference, 5.3.1).
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
