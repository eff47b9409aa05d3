"""Threads for the files of jobs, apart from those of all else.

A disk that stands still keeps each thread that waits for it, and clients may send many files: of
the few threads of the event loop none was left for /health, /metrics and the file of API keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
# Not anyio's: a request that ends would leave its thread there, and the next one gets another.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="job-files")


async def in_file_thread(
    call: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """As `asyncio.to_thread`."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, partial(call, *args, **kwargs))
