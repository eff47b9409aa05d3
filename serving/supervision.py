"""How `bentoml serve` looks after its worker processes: it starts again those that die, soon.

BentoML looks for dead workers every ten seconds, in a container does not replace them, stops the
runners while the API still needs them, and waits a day for a worker that does not stop. It has no
setting for any of it, so what it makes its supervisor (circus) with is wrapped here.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

CHECK_SECONDS = 1.0
STOP_POLL_SECONDS = 0.05
# BentoML's name for the processes of the service itself; a runner's is this, "_" and its own.
API_WATCHER = "service"


def supervise(*, stop_seconds: float, before: Callable[[Collection[str]], None]) -> None:
    """Replace dead workers within a second or two; stop the API first, and kill what takes longer.

    `before` is called before there are any, with the names of their services. To be called while
    the service is being imported, before its processes are made; in those it does nothing.
    """
    if is_worker():
        return
    from bentoml._internal.utils import circus

    make = circus.create_standalone_arbiter
    if not isinstance(make, functools.partial):
        circus.create_standalone_arbiter = functools.partial(_make, make, stop_seconds, before)


def is_worker() -> bool:
    """Whether this is a process that `bentoml serve` has started."""
    spec = sys.modules["__main__"].__spec__
    return spec is not None and spec.name.startswith("_bentoml_impl.worker")


def _make(
    make: Any,
    stop_seconds: float,
    before: Callable[[Collection[str]], None],
    watchers: Sequence[Any],
    **options: Any,
) -> Any:
    before({name for watcher in watchers for name in _service_names(watcher.args)})
    api = [watcher for watcher in watchers if watcher.name == API_WATCHER]
    for watcher in watchers:
        watcher.respawn = True
        watcher.graceful_timeout = stop_seconds
        if watcher not in api:
            watcher.kill_processes = _after(api, watcher.kill_processes)
    return make(watchers, **{"check_delay": CHECK_SECONDS, **options})


def _service_names(arguments: Sequence[str]) -> set[str]:
    return {name for flag, name in pairwise(arguments) if flag == "--service-name"}


def _after(
    first: Sequence[Any], kill_processes: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    async def kill_then(*args: Any, **options: Any) -> None:
        # While they finish what they have begun, they still ask this one.
        while True:
            if not any(watcher.get_active_processes() for watcher in first):
                break
            await asyncio.sleep(STOP_POLL_SECONDS)
        await kill_processes(*args, **options)

    return kill_then
