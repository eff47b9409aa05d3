"""The newest prediction that a spool still holds, by the clock that it was made by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from analytics.log.records import decode
from analytics.log.rejected import rejected_lines
from analytics.log.segments import segments
from core.private_files import open_regular
from core.unreadable import UNREADABLE


def newest_waiting(folder: Path) -> datetime | None:
    """The time of the newest prediction in the segments and the rejected lines of a folder.

    Where the clock was set back it is later than now. None: there is none that can be read.
    """
    return max(_times(folder), default=None)


def _times(folder: Path) -> Iterator[datetime]:
    for line in _lines(folder):
        try:
            entry = decode(line)
        except UNREADABLE:
            continue
        yield from (prediction.created_at for prediction in entry.predictions)


def _lines(folder: Path) -> Iterator[bytes]:
    for segment in segments(folder):
        # One may be shipped meanwhile.
        with suppress(OSError), open(segment, "rb", opener=open_regular) as file:
            yield from file
    yield from rejected_lines(folder)
