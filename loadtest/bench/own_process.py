"""New processes for what a benchmark measures alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

_SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def own_process(initializer: Callable[[], object] | None = None) -> Iterator[ProcessPoolExecutor]:
    """A process that begins anew, and imports nothing from the current folder."""
    with safe_path():
        process = ProcessPoolExecutor(1, get_context("spawn"), initializer=initializer)
    with process:
        with safe_path():
            process.submit(os.getpid).result()
        yield process


@contextmanager
def safe_path() -> Iterator[None]:
    """Let no process that starts meanwhile import from the current folder.

    multiprocessing starts its own with `python -c`, for which that folder comes first.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
