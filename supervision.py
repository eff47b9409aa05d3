"""How `bentoml serve` looks after its worker processes: it starts again those that die, soon.

BentoML looks for dead workers every ten seconds, in a container does not replace them, and waits a
day for one that does not stop. It has no setting for any of it, so what it makes its supervisor
with is wrapped here; in the workers themselves this does nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

CHECK_SECONDS = 1.0


def look_after_workers(*, stop_seconds: float) -> None:
    """Replace dead workers within a second or two, and kill one that takes longer to stop.

    To be called while the service is being imported, before its processes are made.
    """
    if "circus" not in sys.modules:  # a worker, or something else that imports the service
        return
    from bentoml._internal.utils import circus

    make = circus.create_standalone_arbiter
    if isinstance(make, functools.partial):
        return

    circus.create_standalone_arbiter = functools.partial(_make, make, stop_seconds)


def _make(make: Any, stop_seconds: float, watchers: Sequence[Any], **options: Any) -> Any:
    for watcher in watchers:
        watcher.respawn = True
        watcher.graceful_timeout = stop_seconds
    return make(watchers, **{"check_delay": CHECK_SECONDS, **options})
