"""The predictions that a spool still holds, for those who look for them before they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from analytics.log.records import decode
from analytics.log.rejected import rejected_lines
from analytics.log.seal import Seals
from analytics.log.segments import segments
from core.private_files import open_regular
from core.types import Prediction
from core.unreadable import UNREADABLE


def waiting_after(folder: Path, time: datetime) -> Iterator[Prediction]:
    """The predictions of a later time in the segments and the rejected lines of a folder.

    Where its clock was ahead and is set back, a time may be later than now. What no key opens is
    left out: nobody can store it.
    """
    seals = Seals(folder)
    for line in _lines(folder):
        try:
            entry = decode(line)
        except UNREADABLE:
            continue
        later = any(prediction.created_at > time for prediction in entry.predictions)
        if later and seals.can_open(entry):
            opened = seals.open(entry)
            yield from (prediction for prediction in opened if prediction.created_at > time)


def _lines(folder: Path) -> Iterator[bytes]:
    for segment in segments(folder):
        # One may be shipped meanwhile.
        with suppress(OSError), open(segment, "rb", opener=open_regular) as file:
            yield from file
    yield from rejected_lines(folder)
