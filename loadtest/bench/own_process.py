"""New processes for what a benchmark measures alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from core.signals import end_with_parent

_SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def own_process() -> Iterator[ProcessPoolExecutor]:
    """A process that begins anew, imports nothing from the current folder, and ends with this one.

    Ctrl-C reaches it from here alone.
    """
    with safe_path():
        process = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)
    with process:
        with safe_path():
            process.submit(os.getpid).result()
        yield process


def _begin() -> None:
    os.setsid()
    end_with_parent()


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
