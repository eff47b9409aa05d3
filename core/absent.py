"""Leaves out packages that another one imports and does not need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


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


@contextmanager
def empty(*packages: str) -> Iterator[None]:
    """Make `packages` empty until the block ends, for who imports them and uses nothing of them.

    Those that were imported before stay. A later import has what is in them. Import their parents
    before the block: NumPy looks up such a name at each access, and would import it again.
    """
    new = {package: ModuleType(package) for package in packages if package not in sys.modules}
    sys.modules.update(new)
    for package, module in new.items():
        parent, _, name = package.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], name, module)
    try:
        yield
    finally:
        for package, module in new.items():
            del sys.modules[package]
            parent, _, name = package.rpartition(".")
            if getattr(sys.modules.get(parent), name, None) is module:
                delattr(sys.modules[parent], name)
