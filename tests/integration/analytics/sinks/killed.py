"""A program that ships spools with sinks, is killed each time at a later point, and ships again.

`python -m tests.integration.analytics.sinks.killed SPOOLS STRIDE`, with the settings in the
environment. A point is before a file is opened to be written, renamed or deleted, before an SQL
statement, and before a commit. It prints the number of runs that were killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import new_segment
from analytics.log.shipment import ship_folder
from core.settings import get_settings
from tests.integration.predictions import make_prediction

FILE_EVENTS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link"})
# More than a run has.
MOST_POINTS = 2_000
WAIT_SECONDS = 20.0


class Fuse:
    """Kills this process at a point."""

    def __init__(self) -> None:
        self.left = 0

    def burn(self) -> None:
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def on_audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in FILE_EVENTS or (name == "open" and arguments[2] & os.O_ACCMODE):
            self.burn()


def add_segment(spool: Path) -> None:
    """Predictions of two hours, one of them a repeat."""
    now = datetime.now(UTC)
    spool.mkdir(parents=True, exist_ok=True)
    made = [make_prediction(created_at=now - timedelta(hours=n % 2)) for n in range(6)]
    records = [to_record(prediction, "hash") for prediction in [*made, made[0]]]
    path = new_segment(spool, now)
    path.write_bytes(b"".join(encode(Entry((record,))) for record in records))


def ship(spool: Path) -> None:
    settings = get_settings()
    url = settings.sqlalchemy_url()
    shipping = ship_folder(spool, url, (), wait_seconds=WAIT_SECONDS, settings=settings)
    result = asyncio.run(shipping)
    assert (result.left, result.sinks_left) == (0, {"events": 0, "parquet": 0}), result


def main() -> None:
    spools, stride = Path(sys.argv[1]), int(sys.argv[2])
    fuse = Fuse()
    sys.addaudithook(fuse.on_audit)
    event.listen(Engine, "before_cursor_execute", lambda *_: fuse.burn())
    event.listen(Engine, "commit", lambda _: fuse.burn())
    killed = 0
    for point in range(1, MOST_POINTS, stride):
        # A new spool each time, as of another replica, so that the first steps of one are tried.
        spool = spools / str(point)
        add_segment(spool)
        add_segment(spool)
        is_killed = run(spool, fuse, point)
        if run(spool, fuse, 0):
            raise SystemExit("a run without a fuse was killed")
        if not is_killed:
            break
        killed += 1
    print(killed)  # noqa: T201


def run(spool: Path, fuse: Fuse, point: int) -> bool:
    """Ship a spool in a process of its own; whether the fuse has killed it."""
    child = os.fork()
    if child == 0:
        fuse.left = point
        try:
            ship(spool)
        except BaseException:  # noqa: BLE001  the fork must not go on as its parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the run to point {point} failed")
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    main()
